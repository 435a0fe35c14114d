//! What the scripts promise, asked of a real server where SWITCHPOINT_TEST_REDIS names one.
