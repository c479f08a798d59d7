//! rrun tests
