"""SDTalk: one portrait and one speech recording in, a talking-head video out."""
