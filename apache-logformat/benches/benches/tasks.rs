//! Every task in Criterion's hands.

use apache_logformat_benches::tasks;
use criterion::{Criterion, criterion_group, criterion_main};

fn all(criterion: &mut Criterion) {
    for mut task in tasks() {
        criterion.bench_function(task.name, |bencher| bencher.iter(&mut task.run));
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
