//! Builds and launches the VM; client library.
