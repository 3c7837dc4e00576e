//! What one core owns, and its loop.
