//! The tables of keys in `configs/README.md` match the declarations of the settings.

use std::fs;
use std::path::Path;

use clap::Args;
use oneactor::cli::image_prompt::ImagePromptFlags;
use oneactor::cli::sample::{GuidanceFlags, ShortcutFlags};
use oneactor::cli::setting::AllowedValues;
use oneactor::cli::{
    AblateFlags, AxisFlags, AxisLists, ControlFlags, Declared, DrawingFlags, EvaluateFlags,
    GenerateBaseFlags, ModelFlags, SampleFlags, Setting, SweepFlags, TuneFlags,
};

use crate::text;

const PAGE: &str = "configs/README.md";

/// What stands before and after the name of a table, in the comment that marks the place.
const MARK: (&str, &str) = ("<!-- keys: ", " -->");

/// The clap argument of each flag, which has the flag's words and help.
fn arguments<F: Args>() -> Vec<clap::Arg> {
    let command = F::augment_args(clap::Command::new("keys"));
    command.get_arguments().cloned().collect()
}

/// A row of the table. A key may allow values that its type does not name, such as `null` or
/// `"auto"`: the declaration describes them.
fn row(setting: &Setting, argument: &clap::Arg) -> String {
    let [values, default, meaning] = setting.page;
    let quoted = |names: Vec<String>| names.join(", ");
    let names = argument.get_possible_values();
    let names = names.iter().map(|value| format!("`{}`", value.get_name()));
    let derived = match setting.values {
        AllowedValues::Switch => "true, false".to_owned(),
        AllowedValues::Words(_) => quoted(names.collect()),
        AllowedValues::Number(first, last, _) => format!("{first} to {last}"),
        AllowedValues::Whole(first, last, _) => format!("{first} to {last}"),
        AllowedValues::Steps => "`\"first-last\"` within 1 to `steps`".to_owned(),
        AllowedValues::Any => String::new(),
    };
    let derived_default = match setting.values.default() {
        serde_json::Value::Null => "none".to_owned(),
        serde_json::Value::String(word) => format!("`{word}`"),
        serde_json::Value::Number(number) => {
            number.as_f64().map(|n| n.to_string()).unwrap_or_default()
        }
        value => value.to_string(),
    };
    let help = argument
        .get_help()
        .map(|help| help.to_string().replace('\n', " "));
    let help = help.unwrap_or_default();
    let help = help.split(" [default").next().unwrap_or_default();
    let cell = |said: &str, derived: &str| {
        let said = if said.is_empty() { derived } else { said };
        said.replace('|', "\\|")
    };
    let values = cell(values, &derived);
    assert!(
        !values.is_empty(),
        "`{}` says nothing of its values",
        setting.key
    );
    format!(
        "| `{}` | {values} | {} | {} |\n",
        setting.key,
        cell(default, &derived_default),
        cell(meaning, help)
    )
}

/// The rows of those settings of a flag struct for which `is_shown` holds.
fn rows<F: Declared>(is_shown: impl Fn(&Setting) -> bool) -> String {
    let arguments = arguments::<F>();
    let settings = F::settings().into_iter().filter(is_shown);
    let rows = settings.map(|setting| {
        let argument = arguments
            .iter()
            .find(|argument| argument.get_id() == setting.key);
        row(&setting, argument.expect("a setting is a flag"))
    });
    rows.collect()
}

/// The rows of the axes of `sweep`, whose values may be lists.
fn axes() -> String {
    let axis = |setting: Setting| {
        let name = setting.axis.expect("it is an axis");
        let key = setting.key;
        let of_key: String = rows::<AxisFlags>(|setting| setting.key == key);
        let cells: Vec<&str> = of_key.trim().trim_matches('|').split(" | ").collect();
        let [key, values, default, meaning] = cells[..] else {
            panic!("a row has four cells: {of_key}");
        };
        let (key, meaning) = (key.trim(), meaning.trim());
        format!("| {key} | {values}, or a list | {default} | `{name}` on the grid; {meaning} |\n")
    };
    AxisLists::settings().into_iter().map(axis).collect()
}

/// The rows of the table of this name.
fn table(name: &str) -> String {
    let groups = [
        ModelFlags::settings(),
        DrawingFlags::settings(),
        ControlFlags::settings(),
        AxisFlags::settings(),
        GuidanceFlags::settings(),
        ShortcutFlags::settings(),
        ImagePromptFlags::settings(),
    ]
    .concat();
    let own = |setting: &Setting| !groups.contains(setting);
    let sample = SampleFlags::settings();
    let beside_sample = |setting: &Setting| own(setting) && !sample.contains(setting);
    let is_scale = |setting: &Setting| setting.key == "guidance_scale";
    let all = |_: &Setting| true;
    let rows = match name {
        "model" => rows::<ModelFlags>(all),
        "drawing" => rows::<AxisFlags>(is_scale) + &rows::<DrawingFlags>(all),
        "control" => rows::<ControlFlags>(all),
        "generate-base" => rows::<GenerateBaseFlags>(own),
        "tune" => rows::<TuneFlags>(own),
        "sample" => {
            rows::<SampleFlags>(own)
                + &rows::<AxisFlags>(|setting| !is_scale(setting))
                + &rows::<GuidanceFlags>(all)
                + &rows::<ShortcutFlags>(all)
        }
        "ip-adapter" => rows::<ImagePromptFlags>(all),
        "sweep" => axes() + &rows::<SweepFlags>(beside_sample),
        "ablate" => rows::<AblateFlags>(beside_sample),
        "evaluate" => rows::<EvaluateFlags>(own),
        other => panic!("{PAGE} has a table {other}, which nothing here writes"),
    };
    format!("| key | value | default | source, meaning |\n| --- | --- | --- | --- |\n{rows}")
}

#[test]
fn the_page_has_the_tables_that_the_settings_declare() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = text(&path);
    let mut parts = page.split(MARK.0);
    let mut renewed = parts.next().unwrap_or_default().to_owned();
    let mut tables = 0;
    for part in parts {
        let (name, rest) = part.split_once(MARK.1).expect("a mark ends");
        let rest = rest.trim_start_matches('\n');
        let written: usize = rest
            .split_inclusive('\n')
            .take_while(|line| line.starts_with('|'))
            .map(str::len)
            .sum();
        renewed += &format!(
            "{}{name}{}\n{}{}",
            MARK.0,
            MARK.1,
            table(name),
            &rest[written..]
        );
        tables += 1;
    }
    assert_eq!(tables, 10, "{PAGE} lacks a table");
    if page != renewed {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("key-tables.md");
        fs::write(&place, renewed).expect("the target folder is writable");
        panic!(
            "{PAGE} has other tables than the settings declare. To renew them: cp {} {PAGE}",
            place.display()
        );
    }
}
