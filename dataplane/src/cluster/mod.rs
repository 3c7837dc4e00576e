//! Which endpoint takes an attempt; knows no sockets.
