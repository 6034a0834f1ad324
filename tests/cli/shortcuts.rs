//! Approximations are recorded with their pictures, used again when a picture is redrawn, and
//! refused where they cannot be used.

use crate::{folder_with_actor, oneactor, pixels, text};

/// The row of the first picture in a folder.
fn row(folder: &std::path::Path) -> serde_json::Value {
    let manifest = text(&folder.join("manifest.jsonl"));
    serde_json::from_str(manifest.lines().next().expect("a row")).expect("a row is JSON")
}

#[test]
fn approximations_change_the_picture_are_recorded_and_redrawn() {
    let folder = folder_with_actor("shortcuts");
    let line = "sample robot -p 'a robot in the snow' --steps 6 --guided-steps 1-4";
    oneactor(&folder, &format!("{line} -o whole")).exits_with(0);
    let whole = pixels(&folder.join("whole/0000-0.png"));
    assert_eq!(row(&folder.join("whole")).get("feature_reuse"), None);
    for (name, flags, key, value) in [
        ("reuse", "--feature-reuse 2", "feature_reuse", "2"),
        (
            "interval",
            "--guidance-interval 2-5",
            "guidance_interval",
            "\"2-5\"",
        ),
    ] {
        oneactor(&folder, &format!("{line} {flags} -o {name}")).exits_with(0);
        let drawn = pixels(&folder.join(name).join("0000-0.png"));
        assert_ne!(drawn, whole, "{flags} changes nothing");
        assert_eq!(row(&folder.join(name))[key].to_string(), value);
        // Recorded with the picture, which is not taken for a picture without the approximation.
        let again = format!("sample --from {name}/0000-0.png -o {name}-again");
        oneactor(&folder, &again).exits_with(0);
        let again = pixels(&folder.join(format!("{name}-again/0000-0.png")));
        assert_eq!(again, drawn, "{flags}");
        oneactor(&folder, &format!("{line} -o {name}"))
            .exits_with(2)
            .says(key)
            .writes_nothing();
    }
    // These values approximate nothing: all steps are guided and every pass is whole.
    let line = format!("{line} --feature-reuse 1 --guidance-interval 1-6 -o whole");
    oneactor(&folder, &line).exits_with(0).says("there already");
    assert_eq!(pixels(&folder.join("whole/0000-0.png")), whole);
}

#[test]
fn approximations_are_refused_where_every_pass_must_be_whole() {
    let folder = folder_with_actor("shortcuts-refused");
    for (flags, message) in [
        (
            "robot robot/actor.safetensors --feature-reuse 2",
            "--feature-reuse cannot be used with several actors",
        ),
        (
            "robot --guidance-interval 0-3",
            "--guidance-interval: found \"0-3\", expected the first and the last step, from 1 to 4",
        ),
        (
            "robot --feature-reuse 0",
            "--feature-reuse: found 0, expected a whole number from 1 to 100",
        ),
    ] {
        oneactor(
            &folder,
            &format!("sample {flags} -p 'a robot' --steps 4 -o out"),
        )
        .exits_with(2)
        .says(message)
        .writes_nothing();
    }
}
