//! What all jobs of a run share: the reporter, the output of results, signals, and the loaded model.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;
use serde_json::{Value, json};

use super::found_ip_adapter::FoundIpAdapter;
use super::located::LocatedModel;
use crate::backbone::Backbone;
use crate::backbone::controlnet::ControlNet;
use crate::cli::{Format, RunFlags};
use crate::config::shard::Shard;
use crate::config::{ImagePromptJob, ModelJob};
use crate::error::usage;
use crate::io::model_files::ModelFiles;
use crate::libtorch::{self, AttentionImplementation};
use crate::progress::Reporter;
use crate::records::job_record::RunFacts;
use crate::signals::Signals;
use crate::streams::{self, path_line};

/// What all jobs of a run share.
pub struct Session {
    /// Messages and progress.
    pub reporter: Reporter,
    /// Ctrl-C and SIGTERM.
    pub signals: Signals,
    /// Whether the run only says what it would do (`--dry-run`).
    pub dry_run: bool,
    command: &'static str,
    format: Format,
    located: RefCell<Vec<(ModelJob, Rc<LocatedModel>)>>,
    loaded: RefCell<Option<(Rc<LocatedModel>, Rc<Backbone>)>>,
    controlnets: RefCell<Vec<FoundControlNet>>,
    ip_adapters: RefCell<Vec<NamedIpAdapter>>,
    /// The notes that were shown already; each is shown once.
    told: RefCell<BTreeSet<String>>,
    tf32: Cell<Option<bool>>,
    attention: Cell<Option<AttentionImplementation>>,
    shard: Shard,
    /// Units of work that were counted so far, including the units of other parts (`--shard`).
    units: Cell<usize>,
    /// Whether the current job is the last.
    pub is_last_job: Cell<bool>,
}

/// The files of a ControlNet, found once for all jobs that use it with the same model, and the loaded network while
/// consecutive jobs use it.
struct FoundControlNet {
    name: String,
    model: ModelJob,
    files: Rc<ModelFiles>,
    loaded: Option<Rc<ControlNet>>,
}

/// An adapter, with the model and the two names (adapter and image encoder) for which it was found.
type NamedIpAdapter = (ModelJob, [Option<String>; 2], Rc<FoundIpAdapter>);

impl Session {
    /// Starts a run of `command`.
    ///
    /// # Errors
    /// When the system refuses signal handlers, or `--shard` or Slurm's environment is no valid part.
    pub fn start(command: &'static str, run: &RunFlags) -> Result<Self> {
        let shard = Shard::resolve(run.shard.as_deref(), |name| std::env::var(name).ok())?;
        let reporter = Reporter::new(run.quiet, run.verbose);
        match (shard.is_whole(), &run.shard) {
            (true, _) => {}
            (false, Some(_)) => reporter.note(&format!("part {shard} of the work")),
            (false, None) => reporter.warn(&format!(
                "part {shard} of the work, because the environment variables of Slurm say so: give --shard 1/1 to do \
                 all of it"
            )),
        }
        Ok(Self {
            reporter,
            shard,
            units: Cell::default(),
            signals: Signals::listen()?,
            dry_run: run.dry_run,
            command,
            format: run.format,
            located: RefCell::default(),
            loaded: RefCell::default(),
            controlnets: RefCell::default(),
            ip_adapters: RefCell::default(),
            told: RefCell::default(),
            tf32: Cell::default(),
            attention: Cell::default(),
            is_last_job: Cell::default(),
        })
    }

    /// The name of the subcommand.
    pub fn command(&self) -> &'static str {
        self.command
    }

    /// Which part of the work this process does.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// Counts `count` further units of work. Returns for each whether it belongs to this process's part.
    pub fn units(&self, count: usize) -> Vec<bool> {
        let first = self.units.replace(self.units.get() + count);
        let units = first..first + count;
        units.map(|unit| self.shard.has(unit)).collect()
    }

    /// The jobs that belong to this process's part. Without a batch file, only `--shard` divides the work and Slurm's
    /// environment does not: each task of a Slurm array may have its own job.
    pub fn own<T>(&self, units: Vec<T>, run: &RunFlags) -> Vec<T> {
        if run.config.is_none() && run.shard.is_none() {
            return units;
        }
        let numbered = units.into_iter();
        let is_own = self.units(numbered.len());
        let own = numbered.zip(is_own).filter(|(_, is_own)| *is_own);
        own.map(|(unit, _)| unit).collect()
    }

    /// Refuses `--shard` for a command whose work cannot be divided.
    ///
    /// # Errors
    /// When this process is to do a part of the work.
    pub fn refuse_shard(&self) -> Result<()> {
        if self.shard.is_whole() {
            Ok(())
        } else {
            Err(usage(format!(
                "found part {} of the work, but {} cannot be divided into parts: leave --shard out, or give --shard \
                 1/1 in a job of Slurm",
                self.shard, self.command
            )))
        }
    }

    /// Warns if the largest seed of a job, `last`, gives the same random numbers as a smaller seed.
    pub fn tell_of_seed(&self, last: i64) {
        let in_use = libtorch::seed_in_use(last);
        if i64::from(in_use) != last {
            self.reporter.warn(&format!(
                "seed {last} gives the same random numbers as seed {in_use}, because only the lowest 32 bits of a seed \
                 count: choose seeds from 0 to {}, which are all different",
                u32::MAX
            ));
        }
    }

    /// The files of a model, found once for all jobs with the same model flags. `model.model` must be set.
    ///
    /// # Errors
    /// As [`LocatedModel::locate`].
    pub fn locate(&self, model: &ModelJob) -> Result<Rc<LocatedModel>> {
        if let Some((_, found)) = self
            .located
            .borrow()
            .iter()
            .find(|(known, _)| known == model)
        {
            return Ok(Rc::clone(found));
        }
        let found = Rc::new(LocatedModel::locate(model, self.reporter.is_quiet())?);
        self.tell_notes_of(&found);
        self.located
            .borrow_mut()
            .push((model.clone(), Rc::clone(&found)));
        Ok(found)
    }

    /// The model, loaded once for consecutive jobs that use it.
    ///
    /// # Errors
    /// When a file is missing or damaged, see [`Backbone::load`].
    pub fn load(&self, located: &Rc<LocatedModel>) -> Result<Rc<Backbone>> {
        if let Some((known, backbone)) = self.loaded.borrow().as_ref()
            && Rc::ptr_eq(known, located)
        {
            return Ok(Rc::clone(backbone));
        }
        // The old model is released first, because there may be no room for two.
        *self.loaded.borrow_mut() = None;
        self.controlnets
            .borrow_mut()
            .iter_mut()
            .for_each(|found| found.loaded = None);
        self.prepare_libtorch(located)?;
        let options = located.load_options();
        let name = located.files.name();
        let device = match located.device {
            tch::Device::Cuda(index) => format!("GPU {index}"),
            _ => "CPU".to_owned(),
        };
        let dtype = located.dtype();
        self.reporter
            .note(&format!("loading {name} on the {device} in {dtype}"));
        let backbone = Backbone::load(&located.files, &options, &mut |component| {
            self.reporter
                .detail(&format!("loading {component} of {name}"));
        })?;
        self.tell_notes_of(located);
        let backbone = Rc::new(backbone);
        *self.loaded.borrow_mut() = Some((Rc::clone(located), Rc::clone(&backbone)));
        Ok(backbone)
    }

    /// Shows the notes that were collected while the files of models and ControlNets were read.
    pub fn tell_all_notes(&self) {
        for (_, model) in self.located.borrow().iter() {
            self.tell_notes_of(model);
        }
        for net in self.controlnets.borrow().iter() {
            self.tell_notes(&net.files);
        }
    }

    fn tell_notes_of(&self, located: &LocatedModel) {
        self.tell_notes(&located.files);
        located.vae.iter().for_each(|vae| self.tell_notes(vae));
    }

    /// Shows the notes that were collected while these files were read, each once a run.
    pub fn tell_notes(&self, files: &ModelFiles) {
        files
            .take_notes()
            .into_iter()
            .for_each(|note| self.tell(note));
    }

    /// Shows a note once a run.
    pub fn tell(&self, note: String) {
        if self.told.borrow_mut().insert(note.clone()) {
            self.reporter.note(&format!("note: {note}"));
        }
    }

    /// Sets libtorch's allocator, and `--tf32` and `--attention` as this model's job has them.
    fn prepare_libtorch(&self, located: &LocatedModel) -> Result<()> {
        libtorch::prepare_allocator(located.device)?;
        let job = &located.job;
        // Not set while no job has the flags, so that libtorch's own environment variables keep their effect.
        if self.tf32.get() != job.tf32 {
            libtorch::set_tf32(job.tf32)?;
            self.tf32.set(job.tf32);
        }
        if self.attention.get() != job.attention {
            libtorch::set_attention(job.attention)?;
            self.attention.set(job.attention);
        }
        Ok(())
    }

    /// Resets the peak of the GPU's memory.
    pub fn reset_peak_memory(&self) {
        if let Some((located, _)) = self.loaded.borrow().as_ref() {
            libtorch::reset_peak_memory(located.device);
        }
    }

    /// The facts of a run of `seconds` with this model, for its record.
    pub fn run_facts(&self, backbone: &Backbone, seconds: f64) -> RunFacts {
        RunFacts {
            model_fingerprint: backbone.facts.fingerprint.clone(),
            device: format!("{:?}", backbone.device()),
            seconds: Some(seconds),
            peak_gpu_memory: self.peak_memory(),
        }
    }

    /// The most bytes that tensors of this job have held on the GPU at a time; `None` without a GPU or without the
    /// shim.
    pub fn peak_memory(&self) -> Option<i64> {
        let loaded = self.loaded.borrow();
        libtorch::peak_memory(loaded.as_ref()?.0.device)
    }

    /// The files of a ControlNet, found once for all jobs that use it with the same model.
    ///
    /// # Errors
    /// When no ControlNet of that name is found.
    pub fn locate_controlnet(&self, model: &LocatedModel, name: &str) -> Result<Rc<ModelFiles>> {
        let mut controlnets = self.controlnets.borrow_mut();
        let known = controlnets
            .iter()
            .find(|found| found.name == name && found.model == model.job);
        if let Some(found) = known {
            return Ok(Rc::clone(&found.files));
        }
        let files = Rc::new(model.find_beside(name, self.reporter.is_quiet())?);
        controlnets.push(FoundControlNet {
            name: name.to_owned(),
            model: model.job.clone(),
            files: Rc::clone(&files),
            loaded: None,
        });
        Ok(files)
    }

    /// The files of an IP-Adapter and its image encoder, found once for all jobs that use them with the same model.
    ///
    /// # Errors
    /// When no adapter or encoder of these names is found.
    pub fn locate_ip_adapter(
        &self,
        model: &LocatedModel,
        job: &ImagePromptJob,
    ) -> Result<Rc<FoundIpAdapter>> {
        let names = [job.ip_adapter.clone(), job.image_encoder.clone()];
        let mut ip_adapters = self.ip_adapters.borrow_mut();
        let known = ip_adapters
            .iter()
            .find(|(of, named, _)| *of == model.job && *named == names);
        if let Some((.., found)) = known {
            return Ok(Rc::clone(found));
        }
        let found = FoundIpAdapter::find(job, model, self.reporter.is_quiet())?;
        let found = Rc::new(found);
        ip_adapters.push((model.job.clone(), names, Rc::clone(&found)));
        Ok(found)
    }

    /// The ControlNets of these files, loaded once for consecutive jobs. All other ControlNets are released.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn load_controlnets(
        &self,
        backbone: &Backbone,
        wanted: &[&Rc<ModelFiles>],
    ) -> Result<Vec<Rc<ControlNet>>> {
        let mut controlnets = self.controlnets.borrow_mut();
        for found in controlnets.iter_mut() {
            if !wanted.iter().any(|files| Rc::ptr_eq(files, &found.files)) {
                found.loaded = None;
            }
        }
        let mut load = |files: &Rc<ModelFiles>| {
            let found = controlnets
                .iter_mut()
                .find(|found| Rc::ptr_eq(&found.files, files))
                .expect("the files come from `locate_controlnet`");
            if let Some(net) = &found.loaded {
                return Ok(Rc::clone(net));
            }
            self.reporter
                .note(&format!("loading the ControlNet {}", files.name()));
            let net = Rc::new(ControlNet::load(files, backbone)?);
            self.tell_notes(files);
            found.loaded = Some(Rc::clone(&net));
            Ok(net)
        };
        wanted.iter().map(|files| load(files)).collect()
    }

    /// Lists a written file on stdout. `--format json` adds the fields of `facts`.
    pub fn wrote(&self, path: &Path, kind: &str, facts: Value) {
        self.list(path, kind, "written", facts);
    }

    /// Lists the files that a dry run would write.
    pub fn list_planned(&self, paths: &[PathBuf]) {
        if paths.is_empty() {
            self.reporter
                .note("nothing to do: every file is there already");
        }
        for path in paths {
            self.list(path, "file", "planned", Value::Null);
        }
    }

    /// Writes results on stdout.
    pub fn print(&self, results: impl AsRef<[u8]>) {
        self.reporter.suspend(|| streams::print(results));
    }

    /// Lists a file on stdout. `status` says what was done with it.
    pub fn list(&self, path: &Path, kind: &str, status: &str, facts: Value) {
        match self.format {
            Format::Text => self.print(path_line(path)),
            Format::Json => {
                // Paths from flags are UTF-8, see `config::paths`.
                let mut of_file = json!({"path": path.to_string_lossy()});
                extend(&mut of_file, facts);
                self.list_object(kind, status, of_file);
            }
        }
    }

    /// Lists an object that is no file; only with `--format json`.
    pub fn list_object(&self, kind: &str, status: &str, facts: Value) {
        if self.format == Format::Text {
            return;
        }
        let mut object = json!({
            "command": self.command,
            "kind": kind,
            "status": status,
        });
        extend(&mut object, facts);
        self.print(format!("{object}\n"));
    }
}

/// Adds the fields of one object to another.
fn extend(object: &mut Value, facts: Value) {
    if let (Value::Object(object), Value::Object(facts)) = (object, facts) {
        object.extend(facts);
    }
}
