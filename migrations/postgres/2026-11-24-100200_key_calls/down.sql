DROP TABLE api_key_calls;
