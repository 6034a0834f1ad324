//! The program's files on disk: the records of how results were made, and the folders of results.
//!
//! Each file name is defined in one place, the type of its folder, and the keys of each JSON file in the type
//! of its record.

pub(crate) mod actor_folder;
pub(crate) mod base_folder;
pub(crate) mod base_record;
pub(crate) mod differences;
pub(crate) mod job_record;
mod json;
pub(crate) mod manifest_row;
pub(crate) mod picture_files;
pub mod picture_record;
pub(crate) mod scene_folder;
pub(crate) mod story_folder;
pub(crate) mod subject;
pub(crate) mod tune_record;

pub use actor_folder::ActorFolder;
pub use base_folder::BaseFolder;
pub use base_record::BaseRecord;
pub use manifest_row::ManifestRow;
pub use picture_files::PictureFiles;
pub use picture_record::PictureRecord;
pub use scene_folder::SceneFolder;
pub use story_folder::StoryFolder;
pub use tune_record::TuneRecord;
