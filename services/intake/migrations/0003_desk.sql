-- What a desk looks at all day: the open dossiers of an agency by due date, and those of one state. Returned dossiers, of
-- which there are a thousand for each open one, stand in none of these indexes.
CREATE INDEX dossier_due ON dossier (agency, due_at, code) WHERE state IN (2, 4, 5, 6, 7);
CREATE INDEX dossier_due_deciding ON dossier (deciding_agency, due_at, code)
    WHERE state IN (2, 4, 5, 6, 7) AND deciding_agency <> agency;
DROP INDEX dossier_state;
CREATE INDEX dossier_state ON dossier (agency, state, code) WHERE state <> 10;
CREATE INDEX dossier_state_deciding ON dossier (deciding_agency, state, code)
    WHERE state <> 10 AND deciding_agency <> agency;
-- The register of a period, in the order of receipt.
CREATE INDEX dossier_received ON dossier (agency, received_at, code) WHERE received_at IS NOT NULL;
