//! DescribeTrails: the trails that a caller in some region sees.
//!
//! A trail of all regions is seen in each of them: as a trail where it is at home, as a shadow trail elsewhere. A trail of one region is
//! seen there only. Names are looked for among the trails that are at home in the region of the request; an ARN finds its trail from
//! everywhere, but no shadow trail when those are left out (API reference, DescribeTrails, `trailNameList` and `includeShadowTrails`).
//! What is well-formed and names no trail is left out without an error, as the operation has none for it.
//!
//! So `validate-logs`, which looks for its trail here in the region of its session, finds a trail of all regions from everywhere, and a trail of
//! one region only with that region as `--region`, as it is with AWS.

use serde::{Deserialize, Serialize};

use crate::api::trail::{Described, Named};
use crate::api::{Call, Error, Operation};
use crate::event::{AccountId, Region};
use crate::trail::Trail;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DescribeTrails {
    /// Names and ARNs. None, or none in it: every trail that is seen.
    trail_name_list: Option<Vec<String>>,
    /// True when left out.
    include_shadow_trails: Option<bool>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    trail_list: Vec<Described>,
}

impl Operation for DescribeTrails {
    const NAME: &'static str = "DescribeTrails";
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let given = self.trail_name_list.as_deref().unwrap_or_default();
        let asked = given
            .iter()
            .map(|given| Named::parse(given))
            .collect::<Result<Vec<_>, _>>()?;
        let with_shadows = self.include_shadow_trails.unwrap_or(true);
        let book = call.home.registry.book();
        let account = call.caller.account;
        let seen = |trail: &Trail| {
            is_of(trail, account)
                && is_described(trail, &asked, (account, call.region), with_shadows)
        };
        let found = book.trails().filter(|entry| seen(&entry.trail));
        Ok(Answer {
            trail_list: found.map(|entry| Described::new(entry)).collect(),
        })
    }
}

/// Whether an account has this trail: as its own, or as a member of its organization (CloudTrail user guide, "Creating a trail for an
/// organization").
fn is_of(trail: &Trail, account: AccountId) -> bool {
    trail.home_account == account
        || trail.organization_id().is_some() && trail.takes_account(&account)
}

/// Whether a caller of the trail's account, in a region, who asked for these or for all, gets this trail.
fn is_described(
    trail: &Trail,
    asked: &[Named],
    (account, region): (AccountId, Region),
    with_shadows: bool,
) -> bool {
    let is_shadow = trail.is_multi_region && trail.home_region != region;
    if is_shadow && !with_shadows {
        return false;
    }
    if asked.is_empty() {
        return is_shadow || trail.home_region == region;
    }
    asked.iter().any(|named| named.is(trail, account, region))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trail::tests::trail;

    #[test]
    fn a_trail_is_seen_where_it_is_and_a_multi_region_trail_everywhere() {
        let everywhere = trail();
        let local = Trail {
            name: "local".parse().unwrap(),
            is_multi_region: false,
            ..trail()
        };
        let (multi_arn, local_arn) = (everywhere.arn(), local.arn());
        let (home, away) = ("us-east-1", "eu-west-1");
        for (asked, region, with_shadows, expected) in [
            (vec![], home, true, "main local"),
            (vec![], home, false, "main local"),
            (vec![], away, true, "main"),
            (vec![], away, false, ""),
            (vec!["main"], home, true, "main"),
            (vec!["main", "local", "main"], home, false, "main local"),
            (vec!["main", "local"], away, true, ""),
            (vec![&*multi_arn], away, true, "main"),
            (vec![&*multi_arn], away, false, ""),
            (vec![&*multi_arn], home, false, "main"),
            (vec![&*local_arn], away, true, "local"),
            (vec!["absent", &*local_arn], home, true, "local"),
            (vec!["absent"], home, true, ""),
        ] {
            let named: Vec<_> = asked.iter().map(|one| Named::parse(one).unwrap()).collect();
            let region = region.parse().unwrap();
            let seen = [&everywhere, &local]
                .into_iter()
                .filter(|trail| {
                    is_described(trail, &named, (trail.home_account, region), with_shadows)
                })
                .map(|trail| trail.name.to_string())
                .collect::<Vec<_>>()
                .join(" ");
            assert_eq!(
                seen, expected,
                "{asked:?} in {region}, shadows: {with_shadows}"
            );
        }
    }
}
