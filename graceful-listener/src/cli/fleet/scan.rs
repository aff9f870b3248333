use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;

use super::definition::Definition;
use super::program::Program;
use super::recipe::Recipe;
use super::supervisor::{AGAIN, Supervisor};
use crate::cli::failure::reason;
use crate::cli::moment::Moment;

/// What a file looked like when it was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    inode: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Supervisor {
    /// Makes the programs what their files say.
    pub(super) fn scan(&mut self) {
        let scan = match self.directory.scan() {
            Ok(scan) => scan,
            Err(error) => {
                self.host.log.line(format_args!(
                    "failed to read {}: {}; all programs go on as they are",
                    self.directory.programs().display(),
                    reason(&error)
                ));
                self.scan_at = Some(Moment::now() + AGAIN);
                return;
            }
        };
        let found = scan.programs;
        self.files.retain(|name, _| found.contains_key(name));
        let mut misnamed = BTreeSet::new();
        let refused = self.refused.len();
        for program in &mut self.programs {
            if !program.removed && !found.contains_key(&*program.name) {
                self.host.log.line(format_args!(
                    "{}: its file is gone, stopping it",
                    program.name
                ));
                program.removed = true;
                program.error = None;
                self.host.changed.set(true);
            }
        }
        for (path, why) in scan.refused {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            self.refuse(&name, why);
            misnamed.insert(name.into_owned());
        }
        self.refused
            .retain(|name, _| found.contains_key(name) || misnamed.contains(name));
        let touched = std::mem::take(&mut self.touched);
        if refused != self.refused.len() {
            self.host.changed.set(true);
        }
        let mut accepted = BTreeMap::new();
        for (name, path) in &found {
            let stamp = match std::fs::metadata(path) {
                Ok(metadata) => Some(Stamp::of(&metadata)),
                Err(_) => None,
            };
            let known = stamp.is_some() && self.files.get(name) == stamp.as_ref();
            if known && !touched.contains(name) {
                continue;
            }
            match read(path) {
                Ok(read) => drop(accepted.insert(name.clone(), read)),
                Err(why) => self.refuse(name, why),
            }
            self.files.extend(stamp.map(|stamp| (name.clone(), stamp)));
        }
        self.refuse_circles(&mut accepted);
        let mut changed = false;
        for (name, recipe) in accepted {
            changed |= self.apply(&name, recipe);
        }
        if changed {
            self.arrange();
        }
    }

    /// Takes out the definitions by which programs would wait for each other.
    fn refuse_circles(&mut self, accepted: &mut BTreeMap<String, Rc<Recipe>>) {
        loop {
            let old = self
                .programs
                .iter()
                .filter(|program| !program.removed && !accepted.contains_key(&*program.name))
                .map(|program| (&*program.name, &program.recipe));
            let new = accepted
                .iter()
                .map(|(name, recipe)| (name.as_str(), recipe));
            let all = old.chain(new).map(|(name, recipe)| {
                let definition = &recipe.definition;
                (name, definition.priority, &definition.depends_on[..])
            });
            let Err(circle) = super::order::order(all) else {
                return;
            };
            let circle: Vec<String> = circle.into_iter().map(str::to_owned).collect();
            let why = format!(
                "depends_on: they wait for each other: {}",
                circle.join(", ")
            );
            let before = accepted.len();
            for name in &circle {
                if accepted.remove(name).is_some() {
                    let path = self.directory.programs().join(format!("{name}.toml"));
                    self.refuse(name, format!("{}: {why}", path.display()));
                }
            }
            if accepted.len() == before {
                return;
            }
        }
    }

    /// Goes on with what there is, and says why.
    fn refuse(&mut self, name: &str, why: String) {
        let position = self.names.get(name).copied();
        let program = position.map(|position| &mut self.programs[position]);
        let already = match &program {
            Some(program) => program.error.as_ref(),
            None => self.refused.get(name),
        };
        if already == Some(&why) {
            return;
        }
        let consequence = match &program {
            Some(_) => "the definition before goes on running",
            None => "it is not started",
        };
        for line in why.lines() {
            self.host.log.line(line);
        }
        self.host.log.line(format_args!("{name}: {consequence}"));
        match program {
            Some(program) => program.error = Some(why),
            None => drop(self.refused.insert(name.into(), why)),
        }
        self.host.changed.set(true);
    }

    /// Returns true if the order of starts may have changed.
    fn apply(&mut self, name: &str, recipe: Rc<Recipe>) -> bool {
        self.refused.remove(name);
        self.host.changed.set(true);
        let position = self.names.get(name).copied();
        let known = position.map(|position| &mut self.programs[position]);
        match known {
            Some(program) if program.recipe.definition == recipe.definition && !program.removed => {
                program.error = None;
                false
            }
            Some(program) => {
                program.redefine(recipe, &self.host);
                true
            }
            None => {
                self.programs.push(Program::new(name, recipe, None));
                true
            }
        }
    }
}

fn read(path: &Path) -> Result<Rc<Recipe>, String> {
    Recipe::parse(path, &Definition::text(path)?)
}
