//! Environment variables of the hub.

use super::*;
use oneactor::io::hub::{HubReport, PUBLIC_ENDPOINT};

fn read(variables: &[(&str, &str)]) -> anyhow::Result<HubSettings> {
    HubSettings::from_lookup(false, true, &|name| {
        let found = variables.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn cache(variables: &[(&str, &str)]) -> String {
    read(variables).unwrap().cache.display().to_string()
}

#[test]
fn the_cache_is_in_the_same_place_as_python_s() {
    let home = ("HOME", "/home/me");
    assert_eq!(cache(&[home]), "/home/me/.cache/huggingface/hub");
    assert_eq!(
        cache(&[home, ("XDG_CACHE_HOME", "/x")]),
        "/x/huggingface/hub"
    );
    let hf_home = ("HF_HOME", "~/hf");
    assert_eq!(
        cache(&[home, hf_home, ("XDG_CACHE_HOME", "/x")]),
        "/home/me/hf/hub"
    );
    let legacy = ("HUGGINGFACE_HUB_CACHE", "/legacy");
    assert_eq!(cache(&[home, hf_home, legacy]), "/legacy");
    assert_eq!(
        cache(&[home, hf_home, legacy, ("HF_HUB_CACHE", "/new")]),
        "/new"
    );
    assert_eq!(
        cache(&[home, ("HF_HUB_CACHE", " ")]),
        "/home/me/.cache/huggingface/hub"
    );
    assert!(read(&[]).is_err());
}

#[test]
fn the_endpoint_is_the_public_one_unless_another_is_set() {
    let home = ("HOME", "/home/me");
    assert_eq!(read(&[home]).unwrap().endpoint.to_string(), PUBLIC_ENDPOINT);
    let mirror = read(&[home, ("HF_ENDPOINT", "https://mirror.example/")]).unwrap();
    assert_eq!(mirror.endpoint.to_string(), "https://mirror.example");
    for wrong in [
        "mirror.example",
        "ftp://mirror.example",
        "https://",
        "https://a b",
    ] {
        let error = read(&[home, ("HF_ENDPOINT", wrong)]).unwrap_err();
        assert_eq!(kind_of(&error), ErrorKind::Usage);
    }
}

#[test]
fn the_token_comes_from_the_variable_or_the_file_and_blank_ones_are_ignored() {
    let scratch = Scratch::new();
    let folder = scratch.path().to_str().unwrap();
    let elsewhere = scratch.path().join("elsewhere");
    let elsewhere = elsewhere.to_str().unwrap();
    std::fs::write(scratch.path().join("token"), "hf_file\n").unwrap();
    std::fs::write(elsewhere, "hf_elsewhere").unwrap();
    let origin = |variables: &[(&str, &str)]| {
        let settings = read(variables).unwrap();
        settings.token.map(|token| token.origin().to_owned())
    };
    let home = ("HF_HOME", folder);
    let file = format!("{folder}/token");
    assert_eq!(origin(&[home]).as_deref(), Some(file.as_str()));
    assert_eq!(
        origin(&[home, ("HF_TOKEN", "")]).as_deref(),
        Some(file.as_str())
    );
    assert_eq!(
        origin(&[home, ("HF_TOKEN", "hf_x")]).as_deref(),
        Some("HF_TOKEN")
    );
    assert_eq!(
        origin(&[home, ("HF_TOKEN_PATH", elsewhere)]).as_deref(),
        Some(elsewhere)
    );
    assert_eq!(origin(&[home, ("HF_TOKEN_PATH", "/nowhere")]), None);
    let implicit = ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
    assert_eq!(origin(&[home, ("HF_TOKEN", "hf_x"), implicit]), None);
    assert!(read(&[home, ("HF_TOKEN", "hf_a b")]).is_err());
}

#[test]
fn a_report_of_the_settings_says_where_the_token_is_from_and_does_not_show_it() {
    let variables = [
        ("HF_HOME", "/hf"),
        ("HF_TOKEN", "hf_secret"),
        ("HF_HUB_OFFLINE", "Yes"),
    ];
    let settings = read(&variables).unwrap();
    let lines = settings.describe();
    assert_eq!(
        lines,
        [
            ("cache", "/hf/hub".to_owned()),
            ("endpoint", PUBLIC_ENDPOINT.to_owned()),
            ("token", "yes, from HF_TOKEN".to_owned()),
            ("offline", "yes, HF_HUB_OFFLINE".to_owned()),
        ]
    );
    assert!(!format!("{settings:?}").contains("secret"));
}

#[test]
fn offline_is_set_by_the_flag_or_by_either_variable() {
    let home = ("HOME", "/home/me");
    assert_eq!(read(&[home]).unwrap().offline, None);
    assert_eq!(
        read(&[home, ("HF_HUB_OFFLINE", "0")]).unwrap().offline,
        None
    );
    let transformers = [home, ("TRANSFORMERS_OFFLINE", "TRUE")];
    assert_eq!(
        read(&transformers).unwrap().offline,
        Some("TRANSFORMERS_OFFLINE")
    );
    let lookup = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
    let flagged = HubSettings::from_lookup(true, false, &lookup).unwrap();
    assert_eq!(flagged.offline, Some("the option offline"));
}

#[test]
fn bars_are_drawn_on_a_terminal_only_and_not_where_they_are_switched_off() {
    let home = ("HOME", "/home/me");
    assert_eq!(read(&[home]).unwrap().report, HubReport::Bars);
    let off = read(&[home, ("HF_HUB_DISABLE_PROGRESS_BARS", "1")]).unwrap();
    assert_eq!(off.report, HubReport::Lines);
    let lookup = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
    let piped = HubSettings::from_lookup(false, false, &lookup).unwrap();
    assert_eq!(piped.report, HubReport::Lines);
    assert_eq!(piped.quiet().report, HubReport::Quiet);
}
