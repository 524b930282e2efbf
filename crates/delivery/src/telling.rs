//! What tasks tell the one who started them.

use tokio::sync::mpsc::UnboundedSender;

/// What a task reports however it ends, be it by a panic: others wait for it.
#[derive(Debug)]
pub(crate) struct Report<N> {
    news: Option<N>,
    to: UnboundedSender<N>,
}

impl<N> Report<N> {
    /// One that says `otherwise` unless the task [says](Report::say) something else.
    pub(crate) fn new(otherwise: N, to: &UnboundedSender<N>) -> Self {
        Self { news: Some(otherwise), to: to.clone() }
    }

    pub(crate) fn say(mut self, news: N) {
        self.news = Some(news);
    }
}

impl<N> Drop for Report<N> {
    fn drop(&mut self) {
        if let Some(news) = self.news.take() {
            // Nobody is there to hear it when the relay stops.
            drop(self.to.send(news));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn one_thing_is_told_however_it_ends() {
        let (to, mut told) = unbounded_channel();
        Report::new("ended", &to).say("done");
        drop(Report::new("ended", &to));
        assert_eq!((told.try_recv(), told.try_recv()), (Ok("done"), Ok("ended")));
        assert!(told.try_recv().is_err());
    }
}
