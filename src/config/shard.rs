//! A part of a run's work, so that several processes can share it. The unit of work is one picture, or one job
//! of `generate-base` and `tune`. Unit k belongs to part k mod n on every machine, so that no picture depends
//! on the number of processes.

use std::fmt;

use anyhow::Result;

use crate::error::usage;

/// Part `index` of `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The part, counted from 0.
    index: usize,
    /// The number of parts, at least 1.
    count: usize,
}

/// Maximum number of parts.
const MOST: usize = 100_000;

impl Shard {
    /// The whole work.
    pub const WHOLE: Shard = Shard { index: 0, count: 1 };

    /// The part that the flag names, or else the part in Slurm's environment variables.
    ///
    /// # Errors
    /// When the value is not a part.
    pub fn resolve(
        flag: Option<&str>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Shard> {
        match flag {
            Some(text) => Self::parse(text),
            None => Self::of_slurm(environment),
        }
    }

    /// `i/n`, counted from 1.
    fn parse(text: &str) -> Result<Shard> {
        let parts = text.split_once('/');
        let numbers = parts.and_then(|(index, count)| {
            Some((index.trim().parse().ok()?, count.trim().parse().ok()?))
        });
        match numbers {
            Some((index, count)) if (1..=count).contains(&index) && count <= MOST => Ok(Shard {
                index: index - 1,
                count,
            }),
            _ => Err(usage(format!(
                "--shard: found \"{text}\", expected i/n with i from 1 to n, for instance 2/4"
            ))),
        }
    }

    /// The part of this process under Slurm, or the whole work without Slurm. A job array divides the work by
    /// SLURM_ARRAY_TASK_ID, _MIN, _STEP and _COUNT; a step divides each of these parts by SLURM_PROCID and
    /// SLURM_STEP_NUM_TASKS. The step is used only if SLURM_STEP_ID shows that `srun` started this process,
    /// because a batch script itself runs once, with SLURM_PROCID 0 and the job's SLURM_NTASKS.
    /// SLURM_STEP_NUM_TASKS is the number of tasks of the step, which may be lower than that of the job.
    fn of_slurm(environment: impl Fn(&str) -> Option<String>) -> Result<Shard> {
        let number = |name: &str| -> Result<Option<usize>> {
            let Some(text) = environment(name).filter(|text| !text.is_empty()) else {
                return Ok(None);
            };
            let number = text.parse().map_err(|_| {
                usage(format!(
                    "{name}: found \"{text}\", expected a whole number; to do the whole work, use --shard 1/1"
                ))
            })?;
            Ok(Some(number))
        };
        let mut shard = Shard::WHOLE;
        if let (Some(id), Some(count)) = (
            number("SLURM_ARRAY_TASK_ID")?,
            number("SLURM_ARRAY_TASK_COUNT")?,
        ) {
            let first = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
            let step = number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
            shard = shard.split(
                id.saturating_sub(first) / step,
                count,
                "SLURM_ARRAY_TASK_ID",
            )?;
        }
        let is_step = environment("SLURM_STEP_ID").is_some();
        if let (true, Some(id), Some(count)) = (
            is_step,
            number("SLURM_PROCID")?,
            number("SLURM_STEP_NUM_TASKS")?,
        ) {
            shard = shard.split(id, count, "SLURM_PROCID")?;
        }
        Ok(shard)
    }

    /// Part `index` of `count` of this part.
    fn split(self, index: usize, count: usize, what: &str) -> Result<Shard> {
        let whole = self.count.saturating_mul(count);
        if index >= count || whole > MOST {
            return Err(usage(format!(
                "{what}: found task {index} of {count}, expected a task of an array without gaps: give the \
                part with --shard i/n"
            )));
        }
        Ok(Shard {
            index: self.index * count + index,
            count: whole,
        })
    }

    /// Whether this is the whole work.
    pub fn is_whole(self) -> bool {
        self.count == 1
    }

    /// Whether a unit of work belongs to this part.
    pub fn has(self, unit: usize) -> bool {
        unit % self.count == self.index
    }

    /// The part in file names: `2-of-4`.
    pub fn label(self) -> String {
        format!("{}-of-{}", self.index + 1, self.count)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.index + 1, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slurm(variables: &[(&str, &str)]) -> Result<Shard> {
        Shard::resolve(None, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn every_unit_is_of_one_part() -> Result<()> {
        for count in 1..6 {
            let parts: Vec<Shard> = (1..=count)
                .map(|index| Shard::parse(&format!("{index}/{count}")))
                .collect::<Result<_>>()?;
            for unit in 0..20 {
                assert_eq!(parts.iter().filter(|part| part.has(unit)).count(), 1);
            }
        }
        for wrong in ["0/2", "3/2", "2", "a/b", "1/0", "-1/2", "1/100001", ""] {
            let error = Shard::parse(wrong).expect_err(wrong).to_string();
            assert!(error.contains("expected i/n"), "{error}");
        }
        Ok(())
    }

    #[test]
    fn slurm_says_which_part_this_is() -> Result<()> {
        assert_eq!(slurm(&[])?, Shard::WHOLE);
        let array = [
            ("SLURM_ARRAY_TASK_ID", "7"),
            ("SLURM_ARRAY_TASK_MIN", "3"),
            ("SLURM_ARRAY_TASK_STEP", "2"),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
        ];
        assert_eq!(slurm(&array)?, Shard { index: 2, count: 4 });
        let step = [
            ("SLURM_STEP_ID", "0"),
            ("SLURM_PROCID", "1"),
            ("SLURM_STEP_NUM_TASKS", "3"),
        ];
        assert_eq!(slurm(&step)?, Shard { index: 1, count: 3 });
        let both = [&array[..], &step[..]].concat();
        assert_eq!(
            slurm(&both)?,
            Shard {
                index: 7,
                count: 12
            }
        );
        // The batch script of a job with several tasks is not one of them.
        assert_eq!(
            slurm(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "3")])?,
            Shard::WHOLE
        );
        for broken in [
            [
                ("SLURM_ARRAY_TASK_ID", "x"),
                ("SLURM_ARRAY_TASK_COUNT", "4"),
            ],
            [
                ("SLURM_ARRAY_TASK_ID", "4"),
                ("SLURM_ARRAY_TASK_COUNT", "4"),
            ],
        ] {
            let error = slurm(&broken).expect_err("it is no part").to_string();
            assert!(error.contains("--shard"), "{error}");
        }
        Ok(())
    }
}
