DROP TABLE ends_unwritten;
