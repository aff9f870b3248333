//! Apache LogFormat strings compiled into a tower layer that writes one exact line per request.
