"""Programs that use a client library against a server; run by ``test_clients`` with an interpreter that has it."""
