-- What one agency decides of what another received: asked for by who sees the first and not the second.
CREATE INDEX dossier_between ON dossier (deciding_agency, agency, code) WHERE deciding_agency <> agency;
CREATE INDEX dossier_between_state ON dossier (deciding_agency, agency, state, code)
    WHERE deciding_agency <> agency AND state <> 10;
CREATE INDEX copy_between ON copy (deciding_agency, agency, code) WHERE deciding_agency <> agency;
CREATE INDEX copy_between_state ON copy (deciding_agency, agency, state, code)
    WHERE deciding_agency <> agency AND state <> 10;
