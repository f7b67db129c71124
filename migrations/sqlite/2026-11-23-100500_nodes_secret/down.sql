DROP TABLE nodes_secret;
