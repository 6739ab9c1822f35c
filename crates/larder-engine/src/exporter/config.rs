//! The config of an image: the frontend's, with layers and times.

use jiff::Timestamp;
use larder_oci::{Digest, HistoryEntry, ImageConfig, RootFs};

/// A layer, as far as the config needs it.
pub(crate) struct LayerFacts {
    pub(crate) diff_id: Digest,
    pub(crate) created_at: Timestamp,
    pub(crate) description: String,
}

/// Returns `config` with the diff IDs of `layers`, and with all times set: a layer's entry takes
/// the time of its layer, an empty one that of the next layer, or of the last.
///
/// `base_history` is the number of entries that come from the base image; these stay as they are.
/// With an `epoch`, no later time occurs in what is new.
pub(crate) fn finish(
    mut config: ImageConfig,
    layers: &[LayerFacts],
    base_history: usize,
    epoch: Option<Timestamp>,
) -> ImageConfig {
    match_layers(&mut config.history, layers);
    let mut times = layers.iter().map(|layer| layer.created_at.to_string());
    for entry in config.history.iter_mut().filter(|entry| !entry.empty_layer) {
        let time = times.next();
        entry.created = entry.created.take().or(time);
    }
    fill_times(&mut config.history);
    if let Some(epoch) = epoch {
        for entry in config.history.iter_mut().skip(base_history) {
            let earlier = entry
                .created
                .as_ref()
                .and_then(|time| time.parse::<Timestamp>().ok())
                .filter(|time| *time <= epoch);
            entry.created = Some(earlier.unwrap_or(epoch).to_string());
        }
    }
    config.created = match epoch {
        Some(epoch) => Some(epoch.to_string()),
        None => config
            .history
            .last()
            .and_then(|entry| entry.created.clone()),
    };
    config.rootfs = RootFs {
        diff_ids: layers.iter().map(|layer| layer.diff_id.clone()).collect(),
        ..RootFs::default()
    };
    config
}

/// Makes the number of entries with a layer that of the layers.
fn match_layers(history: &mut Vec<HistoryEntry>, layers: &[LayerFacts]) {
    let mut count = history.iter().filter(|entry| !entry.empty_layer).count();
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        if count <= layers.len() {
            break;
        }
        entry.empty_layer = true;
        count -= 1;
    }
    for layer in &layers[count.min(layers.len())..] {
        history.push(HistoryEntry {
            created: Some(layer.created_at.to_string()),
            created_by: layer.description.clone(),
            comment: "buildkit.exporter.image.v0".to_owned(),
            ..HistoryEntry::default()
        });
    }
}

/// Gives entries without time that of the first new layer, later ones that of the layer before.
fn fill_times(history: &mut [HistoryEntry]) {
    let mut current: Option<String> = None;
    let mut missing = false;
    for entry in &*history {
        if let Some(created) = &entry.created {
            current = Some(created.clone());
            if missing {
                break;
            }
        } else {
            missing = true;
        }
    }
    missing = false;
    for entry in history {
        match &entry.created {
            Some(created) if missing => current = Some(created.clone()),
            Some(_) => {}
            None => {
                missing = true;
                entry.created.clone_from(&current);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn entry(created: Option<i64>, empty_layer: bool) -> HistoryEntry {
        HistoryEntry {
            created: created.map(|at| time(at).to_string()),
            empty_layer,
            ..HistoryEntry::default()
        }
    }

    fn layer(at: i64) -> LayerFacts {
        LayerFacts {
            diff_id: Digest::sha256(at.to_string()),
            created_at: time(at),
            description: "x".into(),
        }
    }

    fn created(config: &ImageConfig) -> Vec<i64> {
        let seconds = |entry: &HistoryEntry| {
            entry
                .created
                .as_ref()
                .unwrap()
                .parse::<Timestamp>()
                .unwrap()
                .as_second()
        };
        config.history.iter().map(seconds).collect()
    }

    #[test]
    fn empty_entries_take_the_time_of_the_next_layer() {
        let history = vec![
            entry(Some(10), false),
            entry(None, true),
            entry(None, false),
            entry(None, false),
            entry(None, true),
        ];
        let config = ImageConfig {
            history,
            ..ImageConfig::default()
        };
        let config = finish(config, &[layer(10), layer(20), layer(30)], 1, None);
        assert_eq!(created(&config), [10, 20, 20, 30, 30]);
        assert_eq!(config.created, Some(time(30).to_string()));
        assert_eq!(config.rootfs.diff_ids.len(), 3);
    }

    #[test]
    fn an_epoch_bounds_what_is_new() {
        let history = vec![entry(Some(10), false), entry(None, false)];
        let config = ImageConfig {
            history,
            ..ImageConfig::default()
        };
        let config = finish(config, &[layer(10), layer(20)], 1, Some(time(5)));
        assert_eq!(created(&config), [10, 5]);
        assert_eq!(config.created, Some(time(5).to_string()));
    }

    #[test]
    fn layers_without_history_get_an_entry() {
        let config = finish(ImageConfig::default(), &[layer(1)], 0, None);
        assert_eq!(config.history[0].comment, "buildkit.exporter.image.v0");
    }
}
