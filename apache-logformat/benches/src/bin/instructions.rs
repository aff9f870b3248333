//! One task, many times, for callgrind to count the instructions of;
//! `instructions.sh` runs it. Without arguments it lists the tasks.

use std::env;

use apache_logformat_benches::tasks;

fn main() {
    let mut tasks = tasks();
    let mut arguments = env::args().skip(1);
    let Some(name) = arguments.next() else {
        for task in tasks {
            println!("{}", task.name);
        }
        return;
    };
    let task = tasks
        .iter_mut()
        .find(|task| task.name == name)
        .expect("the name of a task");
    let times: u32 = arguments
        .next()
        .and_then(|times| times.parse().ok())
        .expect("a number of times");
    for _ in 0..times {
        (task.run)();
    }
}
