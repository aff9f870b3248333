use std::collections::{BTreeMap, BTreeSet};

/// Returns the programs in the order in which to start them: each behind those
/// that it depends on, and otherwise lower priorities first and by name.
///
/// A program that others depend on and that is not there holds nobody's place.
///
/// # Errors
///
/// Fails with programs that depend on each other in a circle, in the order of the
/// circle.
pub(crate) fn order<'a>(
    programs: impl Iterator<Item = (&'a str, i32, &'a [String])>,
) -> Result<Vec<&'a str>, Vec<&'a str>> {
    let known: BTreeMap<&str, (i32, &[String])> = programs
        .map(|(name, priority, depends_on)| (name, (priority, depends_on)))
        .collect();
    let mut missing: BTreeMap<&str, usize> = BTreeMap::new();
    let mut dependents: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut free = BTreeSet::new();
    for (&name, &(priority, _)) in &known {
        let needs: BTreeSet<&str> = needs(&known, name).collect();
        for on in &needs {
            dependents.entry(on).or_default().push(name);
        }
        if needs.is_empty() {
            free.insert((priority, name));
        } else {
            missing.insert(name, needs.len());
        }
    }
    let mut ordered = Vec::with_capacity(known.len());
    while let Some((_, name)) = free.pop_first() {
        ordered.push(name);
        for dependent in dependents.remove(name).unwrap_or_default() {
            let left = missing.get_mut(dependent);
            if let Some(left) = left {
                *left -= 1;
                if *left == 0 {
                    missing.remove(dependent);
                    free.insert((known[dependent].0, dependent));
                }
            }
        }
    }
    match missing.keys().next() {
        None => Ok(ordered),
        Some(first) => Err(circle(&known, &missing, first)),
    }
}

type Known<'a> = BTreeMap<&'a str, (i32, &'a [String])>;

fn needs<'a>(known: &Known<'a>, name: &str) -> impl Iterator<Item = &'a str> {
    known
        .get(name)
        .into_iter()
        .flat_map(|(_, depends_on)| depends_on.iter())
        .filter_map(|on| known.get_key_value(on.as_str()).map(|(on, _)| *on))
}

/// Walks from one program that could not be placed to another that it waits for,
/// until one comes again.
fn circle<'a>(
    known: &Known<'a>,
    missing: &BTreeMap<&'a str, usize>,
    first: &'a str,
) -> Vec<&'a str> {
    let mut path = vec![first];
    loop {
        let last = path[path.len() - 1];
        // Who could not be placed waits for another one of that kind.
        let Some(next) = needs(known, last).find(|on| missing.contains_key(on)) else {
            return path;
        };
        if let Some(begin) = path.iter().position(|name| *name == next) {
            return path.split_off(begin);
        }
        path.push(next);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn ordered(programs: &[(&str, i32, &[&str])]) -> Result<Vec<String>, Vec<String>> {
        let programs: Vec<_> = programs
            .iter()
            .map(|(name, priority, on)| {
                let on: Vec<String> = on.iter().map(|&on| on.into()).collect();
                (*name, *priority, on)
            })
            .collect();
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        let borrowed = programs
            .iter()
            .map(|(name, priority, on)| (*name, *priority, &**on));
        order(borrowed).map(owned).map_err(owned)
    }

    #[test]
    fn lower_priorities_come_first_and_then_names() {
        let programs = [
            ("c", 1, &[][..]),
            ("b", 2, &[]),
            ("a", 2, &[]),
            ("d", -5, &[]),
        ];
        assert_eq!(ordered(&programs).unwrap(), ["d", "c", "a", "b"]);
    }

    #[test]
    fn dependency_comes_first_whatever_its_priority() {
        let programs = [
            ("web", 1, &["db", "cache"][..]),
            ("db", 500, &[]),
            ("cache", 900, &["db"]),
        ];
        assert_eq!(ordered(&programs).unwrap(), ["db", "cache", "web"]);
    }

    #[test]
    fn those_that_waited_for_the_same_one_follow_by_priority() {
        let programs = [
            ("a", 2, &["db"][..]),
            ("b", 1, &["db"]),
            ("db", 5, &[]),
            ("z", 0, &[]),
        ];
        assert_eq!(ordered(&programs).unwrap(), ["z", "db", "b", "a"]);
    }

    #[test]
    fn dependency_that_is_not_there_holds_nobodys_place() {
        assert_eq!(ordered(&[("web", 1, &["gone"][..])]).unwrap(), ["web"]);
    }

    #[test]
    fn dependency_listed_twice_is_one() {
        let programs = [("web", 1, &["db", "db"][..]), ("db", 2, &[])];
        assert_eq!(ordered(&programs).unwrap(), ["db", "web"]);
    }

    #[test]
    fn circle_is_told_without_those_that_only_wait_for_it() {
        let programs = [
            ("a", 1, &["b"][..]),
            ("b", 1, &["c"]),
            ("c", 1, &["d"]),
            ("d", 1, &["b"]),
        ];
        assert_eq!(ordered(&programs).unwrap_err(), ["b", "c", "d"]);
        assert_eq!(ordered(&[("x", 1, &["x"][..])]).unwrap_err(), ["x"]);
    }

    proptest! {
        #[test]
        fn everybody_is_placed_behind_dependencies_or_the_circle_is_real(
            on in vec(vec(0usize..12, 0..3), 1..12),
            priorities in vec(0..3i32, 12),
        ) {
            let names: Vec<String> = (0..on.len()).map(|at| format!("p{at:02}")).collect();
            let needs: Vec<Vec<String>> = on
                .iter()
                .map(|on| on.iter().map(|at| format!("p{at:02}")).collect())
                .collect();
            let programs = || names.iter().zip(&priorities).zip(&needs).map(|((n, p), d)| (&**n, *p, &**d));
            match order(programs()) {
                Ok(ordered) => {
                    prop_assert_eq!(ordered.len(), names.len());
                    let place = |name: &str| ordered.iter().position(|other| *other == name);
                    for (name, _, on) in programs() {
                        for dependency in on.iter().filter_map(|on| place(on)) {
                            prop_assert!(dependency < place(name).unwrap());
                        }
                    }
                }
                Err(circle) => {
                    for (at, name) in circle.iter().enumerate() {
                        let next = circle[(at + 1) % circle.len()];
                        let (.., on) = programs().find(|(other, ..)| other == name).unwrap();
                        prop_assert!(on.iter().any(|on| on == next), "{name} does not need {next}");
                    }
                }
            }
        }
    }
}
