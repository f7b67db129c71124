DROP TABLE ends_journal;
