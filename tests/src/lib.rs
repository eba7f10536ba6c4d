//! VM harness and end-to-end tests.
