-- How often what an agency (receiving or deciding) had ended or refused in a month gone by was changed afterwards: who keeps
-- figures of that month knows by it whether they still hold.
CREATE TABLE settled (
    agency  text NOT NULL,
    month   date NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (agency, month)
);
