-- What is overdue is looked for by the number at the end of its code as well: among all that had this number in ten years those
-- are a handful.
CREATE INDEX dossier_late_number ON dossier (split_part(code, '-', 3), code)
    WHERE overdue_from IS NOT NULL AND next_tick IS NULL;
CREATE INDEX copy_late_number ON copy (split_part(code, '-', 3), code) WHERE late;
