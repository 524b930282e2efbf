//! Complaints that providers report.

use crate::Outcome;
use crate::world::{COMPLAINTS, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_complaint_is_an_event_and_the_address_gets_no_more() -> Outcome {
    let mut world = World::direct("[reputation]\ncheck_interval = \"1s\"\n").await?;
    let sent = world.delivered(&["ann@example.net"], "complained of").await?;
    world.bring(COMPLAINTS, &sent.complaint("abuse", "ann@example.net")).await?.expect(250)?;
    let event = world.event(&sent.id, "Complaint").await?;
    let complaint = &event["complaint"];
    assert_eq!(complaint["complainedRecipients"][0]["emailAddress"], "ann@example.net", "{event:#}");
    assert_eq!(complaint["complaintFeedbackType"], "abuse", "{event:#}");
    assert_eq!(complaint["userAgent"], "Provider/1.0", "{event:#}");
    assert_eq!(complaint["arrivalDate"], "2026-01-01T00:00:00.000Z", "{event:#}");
    assert_eq!(world.suppressed("ann@example.net").await?, "COMPLAINT");
    let rate = || Ok(world.ask(&["reputation", "--account", "000000000001"])?[0]["complaints"] == 1);
    world.until("a complaint in the rate", rate).await?;

    // What goes to that address from now on is never sent.
    let again = world.send(&["ann@example.net"], "again").await?;
    let event = world.event(&again, "Complaint").await?;
    assert_eq!(event["complaint"]["complaintSubType"], "OnAccountSuppressionList", "{event:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_says_which_reasons_suppress() -> Outcome {
    let mut world = World::direct("").await?;
    world.relay.cli(&["configuration-sets", "create", "plain"])?;
    world.relay.cli(&["accounts", "set", "000000000001", "--suppress", "bounce"])?;
    let sent = world.delivered(&["ann@example.net"], "bounces alone").await?;
    world.bring(COMPLAINTS, &sent.complaint("abuse", "ann@example.net")).await?.expect(250)?;
    world.event(&sent.id, "Complaint").await?;
    // What comes later is told later: when this one is listed, the other would be.
    let sent = world.delivered(&["bob@example.net"], "gone meanwhile").await?;
    world
        .bring(&sent.return_path, &sent.bounce("bob@example.net", "5.1.1", "550 5.1.1 user unknown"))
        .await?
        .expect(250)?;
    assert_eq!(world.suppressed("bob@example.net").await?, "BOUNCE");
    assert!(!world.is_suppressed("ann@example.net"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complaint_may_come_to_the_return_path() -> Outcome {
    let mut world = World::direct("").await?;
    let sent = world.delivered(&["ann@example.net"], "complained of").await?;
    world.bring(&sent.return_path, &sent.complaint("abuse", "ann@example.net")).await?.expect(250)?;
    world.event(&sent.id, "Complaint").await?;
    assert_eq!(world.suppressed("ann@example.net").await?, "COMPLAINT");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_that_it_is_no_spam_is_not_suppressed() -> Outcome {
    let mut world = World::direct("").await?;
    let sent = world.delivered(&["ann@example.net"], "wanted").await?;
    world.bring(COMPLAINTS, &sent.complaint("not-spam", "ann@example.net")).await?.expect(250)?;
    let event = world.event(&sent.id, "Complaint").await?;
    assert_eq!(event["complaint"]["complaintFeedbackType"], "not-spam", "{event:#}");
    let other = world.delivered(&["bob@example.net"], "unwanted").await?;
    world.bring(COMPLAINTS, &other.complaint("abuse", "bob@example.net")).await?.expect(250)?;
    assert_eq!(world.suppressed("bob@example.net").await?, "COMPLAINT");
    assert!(!world.is_suppressed("ann@example.net"));
    Ok(())
}
