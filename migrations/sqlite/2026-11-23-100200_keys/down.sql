DROP TABLE form_nonces;
DROP TABLE api_key_domains;
DROP TABLE api_keys;
