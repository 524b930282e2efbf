//! What operators ask of shaping.

use std::time::Duration;

use postrider_mail::{Domain, sanitize_text};
use tokio::time::timeout;

use super::gate::SYSTEM;
use super::governor::Inner;
use super::orders::Order;
use super::rules::Place;
use super::view::{PauseView, ShapingView};
use crate::route::Route;
use crate::target::{Target, find_mx};
use crate::{Delivery, Error, Shared};

/// Longest name and reason that are kept.
const MAX_TEXT: usize = 1_000;

/// A pause that an operator asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PauseRequest {
    /// A provider, a recipient domain, a host or a whole site.
    pub name: String,
    /// Only what leaves from this source.
    pub source: Option<String>,
    /// How long; without it until it is lifted.
    pub time: Option<Duration>,
    /// Why, for those who ask later.
    pub reason: Option<String>,
}

impl Delivery {
    /// Which rules hold for a recipient domain, a provider or a site, from
    /// where, and how it stands. A domain's hosts are looked up.
    ///
    /// # Errors
    /// [`Error::Unknown`]: there is no such provider or site, and no domain whose
    /// hosts can be found.
    pub async fn shaping(&self, name: &str) -> Result<ShapingView, Error> {
        let inner = &self.0.governor.0;
        let name = plain(name);
        if let Some(provider) = inner.provider_called(&name) {
            let sites = inner.sites_of(&name).iter().map(|site| inner.site_view(site)).collect();
            let provider = Some(inner.provider_view(&provider));
            return Ok(ShapingView { provider, sites, feedback: inner.feedback_views(Some(&name)), name });
        }
        let known = inner.sites_called(&name);
        let place = match known.first() {
            Some(site) => site.place.clone(),
            None => self.0.place_of(&name).await?,
        };
        Ok(inner.view_of(name, &place))
    }

    /// Reads the operator's rules again, while all settings stay; connections
    /// stay open. False when the settings name no file.
    ///
    /// # Errors
    /// [`Error::File`]; the rules in force stay.
    pub fn reload_shaping(&self) -> Result<bool, Error> {
        let settings = self.0.config.load().settings.clone();
        let has_file = settings.shaping.file.is_some();
        // What the rules ask of TLS holds for new connections: lanes begin anew.
        self.reload(settings)?;
        Ok(has_file)
    }

    /// Everything that pauses at the moment.
    pub fn pauses(&self) -> Vec<PauseView> {
        self.0.governor.0.pause_views()
    }

    /// Lets no mail out to a domain, a site or a provider. On disk when it
    /// returns: it survives a restart.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a name that can be none; [`Error::NoSuchSource`];
    /// [`Error::Store`].
    pub async fn pause(&self, request: PauseRequest) -> Result<PauseView, Error> {
        let inner = &self.0.governor.0;
        let since = inner.clock.now();
        let name = plain(&request.name);
        let is_provider = inner.provider_called(&name).is_some();
        if !is_provider && inner.sites_called(&name).is_empty() && name.parse::<Domain>().is_err() {
            return Err(unknown(&name));
        }
        if let Some(source) = request.source.as_deref().filter(|source| *source != SYSTEM)
            && !self.sources().iter().any(|known| known.name == source)
        {
            return Err(Error::NoSuchSource(source.to_owned()));
        }
        let order = Order {
            name,
            is_provider,
            source: request.source,
            since,
            until: request.time.map(|time| since.saturating_add(time)),
            reason: sanitize_text(request.reason.unwrap_or_default(), MAX_TEXT),
        };
        let view = PauseView::from(&order);
        self.0.governor.pause(order).await?;
        tracing::info!(name = %view.name, source = view.source, until = ?view.until, "paused by an operator");
        Ok(view)
    }

    /// Ends the pauses of a name, operators' and others; says how many there were.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn resume(&self, name: &str, source: Option<&str>) -> Result<usize, Error> {
        let name = plain(name);
        let count = self.0.governor.resume(&name, source).await?;
        tracing::info!(name, source, count, "pauses ended by an operator");
        Ok(count)
    }
}

impl Shared {
    /// Where the mail of a domain goes.
    async fn place_of(&self, name: &str) -> Result<Place, Error> {
        let domain: Domain = name.parse().map_err(|_| unknown(name))?;
        let config = self.config.load_full();
        let target = match config.routes.lookup(&domain) {
            Route::Mx => {
                let limit = config.settings.timeouts.lookup.as_duration();
                let finding = find_mx(&*self.resolver, &domain, self.submission.settings().hostname());
                match timeout(limit, finding).await {
                    Ok(Ok((target, _))) => self.governor.split(&domain, target),
                    Ok(Err(finding)) => return Err(Error::Unknown(finding.diagnostic)),
                    Err(_) => return Err(Error::Unknown(format!("nobody says which hosts {name} has"))),
                }
            }
            Route::Static(route) => Target::of_route(route),
            Route::Smarthost(name) => match config.smarthosts.get(&**name) {
                Some(target) => return Ok(Place::of(target)),
                None => return Err(unknown(name)),
            },
            Route::BuiltIn(name) => match self.built_in.get(&**name) {
                Some(dialer) => Target::of_built_in(name, dialer.clone()),
                None => return Err(unknown(name)),
            },
            Route::Hold => return Err(Error::Unknown(format!("mail for {name} is held by its route"))),
        };
        Ok(Place::of(&target))
    }
}

impl Inner {
    /// The site of a place: as it is in use, or as it would be.
    fn view_of(&self, name: String, place: &Place) -> ShapingView {
        let rules = self.shaping.load().rules(place);
        let provider_name = rules.provider.as_ref().map(|provider| provider.name.clone());
        let provider = provider_name.as_deref().and_then(|name| self.provider_called(name));
        let mut sites: Vec<_> = self.sites_like(place).iter().map(|site| self.site_view(site)).collect();
        if sites.is_empty() {
            sites.push(self.place_view(place));
        }
        ShapingView {
            name,
            provider: provider.map(|provider| self.provider_view(&provider)),
            sites,
            feedback: self.feedback_views(provider_name.as_deref()),
        }
    }
}

/// A name as names are compared.
fn plain(name: &str) -> String {
    sanitize_text(name.trim().trim_end_matches('.').to_ascii_lowercase(), MAX_TEXT)
}

fn unknown(name: &str) -> Error {
    Error::Unknown(format!("{name} is no provider, no site in use and no domain"))
}
