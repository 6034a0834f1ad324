//! A batch file or a story; the first byte chooses the subcommand.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use oneactor::cli::StoryFlags;
use oneactor::config::ablate::AblateJob;
use oneactor::config::{
    EvaluateJob, GenerateBaseJob, SampleJob, StoryJob, SweepJob, TuneJob, batch, layers,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn plan<F, J>(text: &str, subcommand: &str, check: impl Fn(&F) -> anyhow::Result<J>)
where
    F: Default + Serialize + DeserializeOwned,
{
    let Ok(batch) = batch::parse::<F>(text, "fuzz.json", subcommand) else {
        return;
    };
    let jobs = layers::plan_batch(&F::default(), &batch, Path::new("fuzz.json"), check);
    assert_eq!(jobs.expect("flags are settings").len(), batch.jobs.len());
}

fn story(text: &str) {
    let Ok(root) = batch::parse_json(text, "fuzz.json") else {
        return;
    };
    let output_dir = Path::new("out");
    let story = StoryJob::parse(root, &StoryFlags::default(), Path::new("fuzz.json"), output_dir);
    let Ok(story) = story else {
        return;
    };
    // Every folder that is written to lies inside the output folder.
    for character in &story.characters {
        if let oneactor::config::story::CharacterSource::Described(made) = &character.origin {
            for folder in [&made.base.output_dir, &made.tune.dir] {
                let inner = folder.strip_prefix(output_dir).expect("it is inside");
                let mut parts = inner.components();
                assert!(parts.all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, text)) = bytes.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    match choice % 7 {
        0 => plan(text, "generate-base", GenerateBaseJob::check),
        1 => plan(text, "tune", TuneJob::check),
        2 => plan(text, "sample", SampleJob::check),
        3 => plan(text, "sweep", SweepJob::check),
        4 => plan(text, "ablate", AblateJob::check),
        5 => plan(text, "evaluate", EvaluateJob::check),
        _ => story(text),
    }
});
