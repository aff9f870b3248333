/// Tells the program that this process executes next that it takes over.
pub(crate) const RESUME: &str = "START_SERVER_RESUME";
