-- How the dossier came: a rule may be for one channel. Null: it came before this was kept.
ALTER TABLE dossier ADD COLUMN channel text;
