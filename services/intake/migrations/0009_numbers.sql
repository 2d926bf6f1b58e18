-- A dossier is looked for by the number at the end of its code, in the order of the codes; for an agency that decides what
-- others received, among those alone.
CREATE INDEX dossier_number ON dossier (split_part(code, '-', 3), code);
CREATE INDEX dossier_number_deciding ON dossier (deciding_agency, split_part(code, '-', 3), code)
    WHERE deciding_agency <> agency;
CREATE INDEX copy_number ON copy (split_part(code, '-', 3), code);
CREATE INDEX copy_number_deciding ON copy (deciding_agency, split_part(code, '-', 3), code)
    WHERE deciding_agency <> agency;
