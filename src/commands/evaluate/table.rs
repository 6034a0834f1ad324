//! The results: a row for each picture, prompt and actor, and one for all.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use serde_json::{Map, Value, json};

use super::pictures::{PLAIN, Picture};
use crate::config::evaluate::Gate;
use crate::measures::column::{Column, Summary};

/// All that was measured.
pub(super) struct Table<'a> {
    /// A row each.
    pub pictures: &'a [Picture],
    /// What was measured.
    pub columns: Vec<Column>,
    /// A row each, below the pictures.
    pub groups: Vec<Group>,
    /// Number of the job in its batch.
    job: usize,
}

/// Pictures that are summed up together.
pub(super) struct Group {
    /// `prompt`, `actor` or `overall`.
    pub kind: &'static str,
    /// Prompt or actor; empty for `overall`.
    pub name: String,
    /// Their numbers.
    pub members: Vec<usize>,
}

impl<'a> Table<'a> {
    /// Groups the pictures. Plain ones beside guided ones are a group of their own, and no part of
    /// the whole: the whole tells how good the actors are. The target is in no group.
    pub fn new(pictures: &'a [Picture], columns: Vec<Column>, job: usize) -> Self {
        let is_guided = |picture: &Picture| picture.actor != PLAIN && !picture.is_target;
        let has_guided = pictures.iter().any(is_guided);
        let counts = |picture: &Picture| !has_guided || picture.actor != PLAIN;
        let everything: Vec<usize> = (0..pictures.len())
            .filter(|&i| !pictures[i].is_target)
            .collect();
        let all: Vec<usize> = everything
            .iter()
            .copied()
            .filter(|&i| counts(&pictures[i]))
            .collect();
        let by = |kind, name: &dyn Fn(&Picture) -> Option<String>, members: &[usize]| {
            let mut groups: Vec<Group> = Vec::new();
            let mut places = BTreeMap::new();
            for &i in members {
                let Some(name) = name(&pictures[i]) else {
                    continue;
                };
                let place = *places.entry(name.clone()).or_insert_with(|| {
                    groups.push(Group {
                        kind,
                        name,
                        members: Vec::new(),
                    });
                    groups.len() - 1
                });
                groups[place].members.push(i);
            }
            groups
        };
        let mut groups = by("prompt", &|picture| picture.prompt.clone(), &all);
        groups.extend(by(
            "actor",
            &|picture| Some(picture.actor.clone()),
            &everything,
        ));
        groups.push(Group {
            kind: "overall",
            name: String::new(),
            members: all,
        });
        Self {
            pictures,
            columns,
            groups,
            job,
        }
    }

    fn overall(&self) -> &Group {
        self.groups.last().expect("the last group is the whole")
    }

    /// What is wrong where a gate is not passed.
    pub fn failure(&self, gate: &Gate) -> Option<String> {
        let column = self
            .columns
            .iter()
            .find(|column| column.name == gate.column)?;
        let name = &gate.column;
        match column.over(&self.overall().members) {
            Some(found) if gate.bound.holds(found.mean) => None,
            Some(found) => Some(format!(
                "{name}: found {:.4} overall, expected {}",
                found.mean, gate.bound
            )),
            None => Some(format!(
                "{name}: there is nothing to compare, expected {}",
                gate.bound
            )),
        }
    }

    /// For people: the pictures, then each kind of group as mean ± standard deviation.
    pub fn text(&self) -> String {
        let mut parts =
            vec![self.block("picture", |i| self.pictures[i].path.display().to_string())];
        for kind in ["prompt", "actor", "overall"] {
            let groups = self.groups.iter().filter(|group| group.kind == kind);
            let mut rows = vec![self.heading(kind)];
            for group in groups {
                let title = match group.kind {
                    "overall" => format!("{} pictures", group.members.len()),
                    _ => format!("{} ({})", group.name, group.members.len()),
                };
                let cells = self
                    .columns
                    .iter()
                    .map(|column| match column.over(&group.members) {
                        None => "-".to_owned(),
                        Some(Summary { mean, sd: None, .. }) => format!("{mean:.4}"),
                        Some(Summary {
                            mean, sd: Some(sd), ..
                        }) => format!("{mean:.4} ± {sd:.4}"),
                    });
                rows.push(std::iter::once(title).chain(cells).collect());
            }
            if rows.len() > 1 {
                parts.push(aligned(&rows));
            }
        }
        parts.join("\n")
    }

    fn heading(&self, first: &str) -> Vec<String> {
        let names = self.columns.iter().map(|column| column.name.clone());
        std::iter::once(first.to_owned()).chain(names).collect()
    }

    fn block(&self, first: &str, title: impl Fn(usize) -> String) -> String {
        let mut rows = vec![self.heading(first)];
        for i in 0..self.pictures.len() {
            let cells = self
                .columns
                .iter()
                .map(|column| match column.of_picture(i) {
                    Some(value) => format!("{value:.4}"),
                    None => "-".to_owned(),
                });
            rows.push(std::iter::once(title(i)).chain(cells).collect());
        }
        aligned(&rows)
    }

    /// One JSON object a line: pictures, then groups. A value that there is not is null.
    pub fn json(&self) -> String {
        let mut lines = String::new();
        for (i, picture) in self.pictures.iter().enumerate() {
            let scores = self
                .columns
                .iter()
                .map(|column| (column.name.clone(), json!(column.of_picture(i))));
            let line = json!({
                "command": "evaluate",
                "job": self.job,
                "kind": "picture",
                "path": picture.path.to_string_lossy(),
                "prompt": picture.prompt,
                "actor": picture.actor,
                "seed": picture.seed,
                "scores": scores.collect::<Map<String, Value>>(),
            });
            lines += &format!("{line}\n");
        }
        for group in &self.groups {
            let scores = self.columns.iter().map(|column| {
                let value = column.over(&group.members).map(|summary| {
                    json!({"mean": summary.mean, "sd": summary.sd, "count": summary.count})
                });
                (column.name.clone(), json!(value))
            });
            let mut line = json!({
                "command": "evaluate",
                "job": self.job,
                "kind": group.kind,
                "pictures": group.members.len(),
                "scores": scores.collect::<Map<String, Value>>(),
            });
            if group.kind != "overall" {
                line[group.kind] = json!(group.name);
            }
            lines += &format!("{line}\n");
        }
        lines
    }

    /// A heading, a row for each picture, then for each group, with the deviation of each column behind
    /// its value. What there is not is empty. Paths have their own bytes, which need not be UTF-8.
    pub fn csv(&self) -> Vec<u8> {
        let heading = ["kind", "path", "prompt", "actor", "seed", "pictures"].map(str::to_owned);
        let names = self
            .columns
            .iter()
            .flat_map(|column| [column.name.clone(), format!("{}_sd", column.name)]);
        let heading = heading.into_iter().chain(names).map(OsString::from);
        let mut rows: Vec<Vec<OsString>> = vec![heading.collect()];
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        for (i, picture) in self.pictures.iter().enumerate() {
            let mut row = vec![
                "picture".into(),
                picture.path.clone().into_os_string(),
                picture.prompt.clone().unwrap_or_default().into(),
                picture.actor.clone().into(),
                picture
                    .seed
                    .map_or_else(String::new, |seed| seed.to_string())
                    .into(),
                "1".into(),
            ];
            let columns = self.columns.iter();
            let scores = columns.flat_map(|c| [number(c.of_picture(i)), String::new()]);
            row.extend(scores.map(OsString::from));
            rows.push(row);
        }
        for group in &self.groups {
            let of = |kind: &str| {
                if group.kind == kind {
                    group.name.clone()
                } else {
                    String::new()
                }
            };
            let count = group.members.len().to_string();
            let mut row = vec![
                group.kind.to_owned(),
                String::new(),
                of("prompt"),
                of("actor"),
                String::new(),
                count,
            ];
            row.extend(self.columns.iter().flat_map(|column| {
                let summary = column.over(&group.members);
                [
                    number(summary.map(|s| s.mean)),
                    number(summary.and_then(|s| s.sd)),
                ]
            }));
            rows.push(row.into_iter().map(OsString::from).collect());
        }
        let lines = rows.iter().map(|row| {
            let cells: Vec<Vec<u8>> = row.iter().map(|cell| quoted(cell)).collect();
            [cells.join(&b','), b"\n".to_vec()].concat()
        });
        lines.flatten().collect()
    }
}

/// As RFC 4180 has it.
fn quoted(cell: &OsStr) -> Vec<u8> {
    let bytes = cell.as_encoded_bytes();
    if !bytes.iter().any(|byte| b"\",\n\r".contains(byte)) {
        return bytes.to_vec();
    }
    let doubled = bytes.iter().flat_map(|&byte| match byte {
        b'"' => vec![byte; 2],
        byte => vec![byte],
    });
    let quote = || std::iter::once(b'"');
    quote().chain(doubled).chain(quote()).collect()
}

/// Columns under each other: the first to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let lines = rows.iter().map(|row| {
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(i, (cell, &width))| match i {
                0 => format!("{cell:width$}"),
                _ => format!("{cell:>width$}"),
            });
        format!("{}\n", cells.collect::<Vec<_>>().join("  "))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::evaluate::Bound;
    use crate::measures::column::ColumnValues;

    fn picture(name: &str, prompt: &str, actor: &str) -> Picture {
        Picture {
            path: PathBuf::from(name),
            name: PathBuf::from(name),
            prompt: Some(prompt.to_owned()),
            seed: Some(7),
            actor: actor.to_owned(),
            masks: Vec::new(),
            is_target: false,
            found_mask: None,
        }
    }

    fn column(name: &str, values: ColumnValues) -> Column {
        Column::new(name.to_owned(), values)
    }

    #[test]
    fn plain_pictures_beside_guided_ones_are_no_part_of_the_whole() {
        let pictures = [
            picture("a.png", "a cat", "cat"),
            picture("b.png", "a cat, asleep", "cat"),
            picture("c.png", "a cat", PLAIN),
        ];
        let values = ColumnValues::Pictures([0.5, 0.75, 0.0].map(Some).to_vec());
        let table = Table::new(&pictures, vec![column("clip_i", values)], 1);
        let text = table.text();
        assert!(text.ends_with("2 pictures  0.6250 ± 0.1768\n"), "{text}");
        let csv = String::from_utf8(table.csv()).expect("the names are UTF-8");
        assert!(
            csv.contains("picture,b.png,\"a cat, asleep\",cat,7,1,0.75,\n"),
            "{csv}"
        );
        assert!(csv.contains("overall,,,,,2,0.625,0.1767"), "{csv}");
        assert!(csv.contains("actor,,,plain,,1,0,\n"), "{csv}");
        let failure = |bound| {
            table.failure(&Gate {
                column: "clip_i".to_owned(),
                bound,
            })
        };
        for bound in [Bound::AtLeast(0.625), Bound::AtMost(0.625)] {
            assert_eq!(failure(bound), None);
        }
        for (bound, expected) in [
            (Bound::AtLeast(0.7), "at least 0.7"),
            (Bound::AtMost(0.5), "at most 0.5"),
        ] {
            let expected = format!("clip_i: found 0.6250 overall, expected {expected}");
            assert_eq!(failure(bound), Some(expected));
        }
    }

    #[test]
    fn the_target_among_the_pictures_is_in_no_group() {
        let mut pictures = [
            picture("a.png", "a cat", "cat"),
            picture("b.png", "a cat", "cat"),
        ];
        pictures[0].is_target = true;
        let values = ColumnValues::Pictures(vec![None, Some(0.5)]);
        let csv = Table::new(&pictures, vec![column("clip_i", values)], 1).csv();
        let csv = String::from_utf8(csv).expect("the names are UTF-8");
        for line in [
            "picture,a.png,a cat,cat,7,1,,\n",
            "prompt,,a cat,,,1,0.5,\n",
            "actor,,,cat,,1,0.5,\n",
            "overall,,,,,1,0.5,\n",
        ] {
            assert!(csv.contains(line), "{csv}");
        }
    }

    #[test]
    fn a_gate_without_anything_to_compare_is_not_passed() {
        let pictures = [picture("a.png", "a cat", "cat")];
        let table = Table::new(
            &pictures,
            vec![column("clip_i_pairwise", ColumnValues::Pairs(Vec::new()))],
            1,
        );
        let gate = Gate {
            column: "clip_i_pairwise".to_owned(),
            bound: Bound::AtLeast(-1.0),
        };
        assert!(
            table
                .failure(&gate)
                .is_some_and(|failure| failure.contains("nothing to compare"))
        );
        let line: Value =
            serde_json::from_str(table.json().lines().next().expect("a picture")).expect("JSON");
        assert_eq!(line["scores"]["clip_i_pairwise"], Value::Null);
    }
}
