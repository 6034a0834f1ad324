//! The choice of repository and commit, and where the token is sent.

use super::server::COMMIT;
use super::*;

#[test]
fn all_files_come_from_one_commit_even_if_the_branch_moves() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    let files = locate(&fp16(ID), &settings).unwrap();
    files.text("unet/config.json").unwrap();
    hub.change(ID, |repository| repository.commit = "b".repeat(40));
    let later = locate(&fp16(ID), &settings).unwrap();
    assert_eq!(later.revision(), Some(COMMIT));
    assert_eq!(bytes(&later.weights("unet").unwrap()), unet);
    let mut asked = hub.take_requests();
    asked.retain(|request| request.path.contains("/resolve/"));
    assert!(
        asked.iter().all(|request| request.path.contains(COMMIT)),
        "{asked:?}"
    );
}

#[test]
fn content_shared_by_two_commits_is_fetched_once() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let settings = settings(&hub, &scratch);
    locate(&fp16(ID), &settings)
        .unwrap()
        .weights("unet")
        .unwrap();
    let newer = "b".repeat(40);
    hub.change(ID, |repository| repository.commit.clone_from(&newer));
    hub.take_requests();
    let files = locate(
        &ModelOptions {
            revision: Some(newer.clone()),
            ..fp16(ID)
        },
        &settings,
    )
    .unwrap();
    assert_eq!(files.revision(), Some(newer.as_str()));
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
    assert_eq!(hub.take_downloads().len(), 0);
    let refs = settings.cache.join("models--org--tiny-sdxl/refs");
    assert_eq!(
        std::fs::read_dir(refs).unwrap().count(),
        1,
        "a commit is not a branch"
    );
}

#[test]
fn a_renamed_repository_is_followed() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    hub.rename("org/old-name", ID);
    let files = locate(&fp16("org/old-name"), &settings(&hub, &scratch)).unwrap();
    assert_eq!(
        files.text("unet/config.json").unwrap(),
        "{\"sample_size\": 8}"
    );
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
}

#[test]
fn a_token_opens_a_gated_repository_and_is_sent_to_no_other_host() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    hub.change(ID, |repository| repository.gated = true);
    // The connection is cut, so that the second host gets two requests.
    let large = "unet/diffusion_pytorch_model.fp16.safetensors";
    hub.fail(large, &[server::Fault::Cut(100_000)]);
    let settings = with_token(settings(&hub, &scratch), server::GOOD_TOKEN);
    let files = locate(&fp16(ID), &settings).unwrap();
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
    let (elsewhere, at_the_hub): (Vec<_>, Vec<_>) =
        hub.take_requests().into_iter().partition(|asked| asked.cdn);
    assert_eq!(elsewhere.len(), 2, "{elsewhere:?}");
    let shows_token = |asked: &&server::Request| asked.headers.contains_key("authorization");
    assert_eq!(elsewhere.iter().filter(shows_token).count(), 0);
    assert_eq!(
        at_the_hub.iter().filter(shows_token).count(),
        at_the_hub.len()
    );
}

#[test]
fn a_token_is_not_sent_to_the_content_network_for_public_files() {
    let (hub, unet) = pipeline();
    let scratch = Scratch::new();
    let settings = with_token(settings(&hub, &scratch), server::GOOD_TOKEN);
    let files = locate(&fp16(ID), &settings).unwrap();
    assert_eq!(bytes(&files.weights("unet").unwrap()), unet);
    let requests = hub.take_requests();
    assert!(requests.iter().any(|request| request.cdn));
    for request in requests.iter().filter(|request| request.cdn) {
        assert_eq!(request.headers.get("authorization"), None);
    }
}
