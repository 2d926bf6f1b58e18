-- When this site began to count: found without reading all dossiers.
CREATE INDEX dossier_began ON dossier (began);
