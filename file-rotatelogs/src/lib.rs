//! A rotating io::Write whose file name is a strftime pattern, safe for several processes.
