//! Remove: deletes snapshots from hosts, the bucket, or both. Removing a last copy must be confirmed by typing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::control::Control;
use super::form::{Form, FormReply};
use super::{Content, Context, Dialog, DialogAnswer, DialogQuery, DialogReply};
use crate::cell::Place;
use crate::command::Command;
use crate::format::{self, Distinction, size};
use crate::lookup;
use crate::theme::Theme;
use snapdeck_engine::{ImageLocation, Link, View};
use snapdeck_model::{HostName, ImageIdentity, Object, Operation, Snapshot, SnapshotName};

/// Refusals that are shown; the others are only counted.
const MAX_REFUSALS: usize = 8;
/// Dependents that are named in a refusal.
const MAX_DEPENDENTS: usize = 12;
/// Columns of the hosts' names.
const PLACE_WIDTH: std::ops::RangeInclusive<usize> = 8..=20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RemoveField {
    Host,
    Bucket,
    /// Partial pulls.
    Partials,
    Confirmation,
}

/// A snapshot to remove, and the hosts on which it was chosen.
#[derive(Debug)]
struct Candidate {
    name: SnapshotName,
    hosts: Vec<HostName>,
}

/// A file or object that is removed.
#[derive(Debug)]
struct Target {
    /// `None`: in the bucket.
    host: Option<HostName>,
    name: SnapshotName,
    path: String,
    distinction: Distinction,
    bytes: u64,
    expected_identity: Option<ImageIdentity>,
}

/// The effects of the choices in a view.
#[derive(Debug, Default)]
struct Plan {
    file_count: usize,
    object_count: usize,
    /// Partial pulls of the candidates on all hosts that no job continues, and their sum.
    partials: Vec<(HostName, SnapshotName)>,
    partial_bytes: u64,
    targets: Vec<Target>,
    refusals: Vec<String>,
    /// Snapshots of which no other copy with the same bytes is known to remain.
    last_copies: Vec<SnapshotName>,
    place_width: usize,
}

#[derive(Debug)]
pub(crate) struct RemoveDialog {
    candidates: Vec<Candidate>,
    hosts: Vec<HostName>,
    form: Form<RemoveField>,
    /// The locations that can be removed.
    locations: Arc<[ImageLocation]>,
    /// Copies with the same bytes; `None`: not known yet.
    copies: Option<BTreeMap<ImageLocation, Vec<ImageLocation>>>,
    plan: Plan,
    /// The view and the choices of which the plan is.
    inputs: Option<(Arc<View>, Choices)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choices {
    from_host: bool,
    from_bucket: bool,
    partials: bool,
    has_copies: bool,
}

impl RemoveDialog {
    /// Returns a dialog for the `chosen` snapshots, with the locations they were chosen in selected. `current` is the
    /// host whose files of the same names can be removed along with objects.
    pub(crate) fn new(chosen: Vec<(SnapshotName, Place)>, current: Option<&HostName>) -> Self {
        let in_bucket = chosen.iter().all(|(_, place)| *place == Place::Bucket);
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut positions: HashMap<SnapshotName, usize> = HashMap::new();
        let mut unique = HashSet::new();
        for (name, place) in chosen {
            let host = match place {
                Place::Host(host) => Some(host),
                Place::Bucket => current.cloned(),
            };
            let at = *positions.entry(name.clone()).or_insert(candidates.len());
            if at == candidates.len() {
                let hosts = Vec::new();
                candidates.push(Candidate { name, hosts });
            }
            if let (Some(host), Some(candidate)) = (host, candidates.get_mut(at))
                && unique.insert((host.clone(), at))
            {
                candidate.hosts.push(host);
            }
        }
        let mut hosts: Vec<HostName> = candidates
            .iter()
            .flat_map(|candidate| candidate.hosts.iter().cloned())
            .collect();
        hosts.sort_unstable();
        hosts.dedup();
        let mut form = Form::new([
            (RemoveField::Host, "", Control::CheckBox(!in_bucket)),
            (RemoveField::Bucket, "", Control::CheckBox(in_bucket)),
            (RemoveField::Partials, "", Control::CheckBox(false)),
            (RemoveField::Confirmation, "", Control::phrase()),
        ]);
        form.set_phrase(&RemoveField::Confirmation, None);
        if in_bucket {
            form.focus_on(&RemoveField::Bucket);
        }
        Self {
            locations: locations(&candidates),
            candidates,
            hosts,
            form,
            copies: None,
            plan: Plan::default(),
            inputs: None,
        }
    }

    fn choices(&self) -> Choices {
        Choices {
            from_host: self.form.is_checked(&RemoveField::Host),
            from_bucket: self.form.is_checked(&RemoveField::Bucket),
            partials: self.form.is_checked(&RemoveField::Partials),
            has_copies: self.copies.is_some(),
        }
    }

    /// Returns the files and objects, each with the identity that the dialog shows, and what speaks against it.
    fn plan(&self, view: &View, choices: Choices) -> Plan {
        let objects = lookup::objects_by_name(view);
        let mut plan = Plan::default();
        for candidate in &self.candidates {
            for host in &candidate.hosts {
                let Some(snapshot) = lookup::snapshot(view, host, &candidate.name) else {
                    continue;
                };
                plan.file_count += 1;
                if choices.from_host {
                    plan.targets.push(file_target(host, snapshot));
                    plan.refusals.extend(self.in_use(host, snapshot));
                }
            }
            if let Some(object) = objects.get(&candidate.name) {
                plan.object_count += 1;
                if choices.from_bucket {
                    plan.targets.push(object_target(object));
                }
            }
        }
        let names: HashSet<&SnapshotName> = self.candidates.iter().map(|one| &one.name).collect();
        for host in &view.hosts {
            for partial in lookup::interrupted_partials(view, host) {
                if names.contains(&partial.name) {
                    plan.partials
                        .push((host.name.clone(), partial.name.clone()));
                    plan.partial_bytes += partial.allocated_bytes;
                }
            }
        }
        for host in self.hosts.iter().filter(|_| choices.from_host) {
            if let Some(Link::Down(error)) = lookup::host(view, host).map(|host| &host.link) {
                plan.refusals.push(error.to_string());
            }
        }
        if let (true, Link::Down(error)) = (choices.from_bucket, &view.bucket.link) {
            plan.refusals.push(error.to_string());
        }
        plan.last_copies = self.last_copies(view, &plan.targets, &objects);
        distinguish(&mut plan.targets);
        let widths = plan.targets.iter().map(|target| target.place().width());
        let (least, most) = PLACE_WIDTH.into_inner();
        plan.place_width = widths.max().unwrap_or(0).clamp(least, most);
        plan
    }

    fn in_use(&self, host: &HostName, snapshot: &Snapshot) -> Option<String> {
        if snapshot.dependents.is_empty() {
            return None;
        }
        let named = snapshot.dependents.iter().take(MAX_DEPENDENTS);
        let mut dependents = named.cloned().collect::<Vec<_>>().join(", ");
        let more = snapshot.dependents.len().saturating_sub(MAX_DEPENDENTS);
        if more > 0 {
            dependents.push_str(&format!(" and {more} more"));
        }
        let on = match self.hosts.len() {
            1 => String::new(),
            _ => format!(" on {host}"),
        };
        Some(format!(
            "cannot remove {}{on}: in use by {dependents}",
            snapshot.name
        ))
    }

    /// Returns the snapshots of which no other copy with the same bytes is known to remain. Only reachable hosts and the
    /// reachable bucket count.
    fn last_copies(
        &self,
        view: &View,
        targets: &[Target],
        objects: &HashMap<&SnapshotName, &Object>,
    ) -> Vec<SnapshotName> {
        let removed: HashSet<(&Option<HostName>, &SnapshotName)> = targets
            .iter()
            .map(|target| (&target.host, &target.name))
            .collect();
        let is_removed =
            |location: &ImageLocation| removed.contains(&(&location.host, &location.name));
        let is_bucket_known = lookup::is_bucket_known(view);
        let exists = |location: &ImageLocation| match &location.host {
            None => is_bucket_known && objects.contains_key(&location.name),
            Some(host) => {
                lookup::host(view, host).is_some_and(|host| host.link == Link::Up)
                    && lookup::snapshot(view, host, &location.name)
                        .is_some_and(|snapshot| snapshot.problem.is_none())
            }
        };
        let remains = |target: &Target| {
            let location = ImageLocation {
                host: target.host.clone(),
                name: target.name.clone(),
            };
            let copies = self.copies.as_ref().and_then(|all| all.get(&location));
            let mut copies = copies.into_iter().flatten();
            copies.any(|copy| !is_removed(copy) && exists(copy))
        };
        let last = targets.iter().filter(|target| !remains(target));
        let mut names: Vec<SnapshotName> = last.map(|target| target.name.clone()).collect();
        names.dedup();
        names
    }

    /// Returns what must be typed to confirm; `None` if no last copy is removed.
    fn phrase(&self) -> Option<String> {
        match self.plan.last_copies.as_slice() {
            [] => None,
            [name] => Some(name.to_string()),
            names => Some(format!("remove {}", names.len())),
        }
    }

    fn is_ready(&self) -> bool {
        let has_targets = !self.plan.targets.is_empty() || self.removes_partials();
        has_targets && self.plan.refusals.is_empty()
    }

    fn removes_partials(&self) -> bool {
        self.form.is_checked(&RemoveField::Partials) && !self.plan.partials.is_empty()
    }

    fn submit(&self) -> DialogReply {
        let operations = self.plan.targets.iter();
        let operations = operations.map(|target| Command::Submit(target.operation()));
        let partials = self
            .removes_partials()
            .then(|| Command::RemovePartials(self.plan.partials.clone()));
        DialogReply::Close(operations.chain(partials).collect())
    }

    fn push_targets<'a>(&'a self, content: &mut Content<'a>) {
        let (theme, width, plan) = (content.theme, content.width, &self.plan);
        if plan.targets.is_empty() && self.removes_partials() {
            content.push_wrapped(
                "To remove: only the partial pull; the next pull starts again.",
                0,
                theme.text,
            );
            content.push_blank();
            return;
        }
        if plan.targets.is_empty() {
            content.push_wrapped("Nothing to remove: select a location.", 0, theme.dim);
            return;
        }
        content.push_wrapped("To remove:", 0, theme.text);
        content.push_rows(plan.targets.len(), move |row| {
            plan.targets[row].line(plan.place_width, &theme, width)
        });
        content.push_blank();
    }
}

impl Dialog for RemoveDialog {
    fn update(&mut self, view: &Arc<View>) {
        let choices = self.choices();
        let is_current =
            |(known, of): &(Arc<View>, Choices)| Arc::ptr_eq(known, view) && *of == choices;
        if !self.inputs.as_ref().is_some_and(is_current) {
            self.plan = self.plan(view, choices);
            self.inputs = Some((view.clone(), choices));
            let phrase = self.phrase().filter(|_| self.plan.refusals.is_empty());
            // While the phrase is typed, other copies may be found: its next letter must not be a key of the dialog.
            if phrase.is_some() || self.form.focused() != Some(&RemoveField::Confirmation) {
                self.form.set_phrase(&RemoveField::Confirmation, phrase);
            }
            let host = match self.hosts.as_slice() {
                [] => "no host".to_owned(),
                [one] => one.to_string(),
                many => format::count(many.len(), "host"),
            };
            let (files, objects) = (self.plan.file_count, self.plan.object_count);
            let label = format!("on {host} ({})", format::count(files, "file"));
            self.form.set_label(&RemoveField::Host, label, files > 0);
            let label = format!("in the bucket ({})", format::count(objects, "object"));
            self.form
                .set_label(&RemoveField::Bucket, label, objects > 0);
            let partials = &self.plan.partials;
            let mut hosts: Vec<&str> = partials.iter().map(|(host, _)| host.as_str()).collect();
            hosts.dedup();
            let label = format!(
                "{} on {} ({})",
                format::count(partials.len(), "partial pull"),
                hosts.join(", "),
                size(self.plan.partial_bytes)
            );
            let is_any = !partials.is_empty();
            self.form.set_label(&RemoveField::Partials, label, is_any);
            self.form.show(&RemoveField::Partials, is_any);
        }
    }

    fn pending_query(&self) -> Option<DialogQuery> {
        let is_pending = self.copies.is_none();
        is_pending.then(|| DialogQuery::Copies(self.locations.clone()))
    }

    fn on_answer(&mut self, answer: DialogAnswer) {
        if let DialogAnswer::Copies(locations, copies) = answer
            && locations == self.locations
        {
            self.copies = Some(copies);
            self.inputs = None;
        }
    }

    fn on_key(&mut self, key: KeyEvent, _: &Context<'_>) -> DialogReply {
        match self.form.on_key(key) {
            FormReply::Submit
                if self.is_ready()
                    && self.form.focused() == Some(&RemoveField::Confirmation)
                    && self.form.is_confirmed(&RemoveField::Confirmation) =>
            {
                return self.submit();
            }
            FormReply::Ignored => {}
            _ => return DialogReply::Stay,
        }
        match key.code {
            _ if self.form.focused() == Some(&RemoveField::Confirmation) => DialogReply::Ignored,
            KeyCode::Char('y') if self.is_ready() => match self.phrase() {
                None => self.submit(),
                Some(_) => {
                    self.form.focus_on(&RemoveField::Confirmation);
                    DialogReply::Stay
                }
            },
            KeyCode::Char('n' | 'q') => DialogReply::close(),
            _ => DialogReply::Ignored,
        }
    }

    fn on_click(&mut self, target: usize, _: &Context<'_>) -> DialogReply {
        self.form.on_click(target);
        DialogReply::Stay
    }

    fn paste(&mut self, text: &str) {
        self.form.paste(text);
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let theme = context.theme;
        let subject = match self.candidates.as_slice() {
            [one] => one.name.to_string(),
            many => format::count(many.len(), "snapshot"),
        };
        let mut content = Content::new(format!("remove {subject}"), context, width);
        self.form.push(&mut content, &RemoveField::Host);
        self.form.push(&mut content, &RemoveField::Bucket);
        self.form.push(&mut content, &RemoveField::Partials);
        content.push_blank();
        self.push_targets(&mut content);
        let refusals = &self.plan.refusals;
        for refusal in refusals.iter().take(MAX_REFUSALS) {
            content.push_refusal(refusal);
        }
        if let more @ 1.. = refusals.len().saturating_sub(MAX_REFUSALS) {
            content.push_refusal(&format!("and {more} more"));
        }
        if self.phrase().is_some() && refusals.is_empty() {
            let warning = match self.copies {
                Some(_) => "! No other copy with the same bytes is known: this cannot be undone.",
                None => "! Looking for other copies with the same bytes…",
            };
            content.push_wrapped(warning, 0, theme.bad);
        }
        self.form.push(&mut content, &RemoveField::Confirmation);
        let ready = self.is_ready();
        if self.form.focused() == Some(&RemoveField::Confirmation) {
            let is_confirmed = self.form.is_confirmed(&RemoveField::Confirmation);
            self.form
                .push_keys(&mut content, "remove", ready && is_confirmed);
        } else {
            let confirm = match self.phrase() {
                Some(_) => "continue (type to confirm)",
                None => "remove",
            };
            content.push_key("y", confirm, ready);
            content.push_key("space", "toggle", true);
            content.push_key("n", "cancel", true);
        }
        content
    }
}

impl Target {
    fn place(&self) -> &str {
        self.host.as_ref().map_or("bucket", HostName::as_str)
    }

    fn operation(&self) -> Operation {
        Operation::Remove {
            host: self.host.clone(),
            name: self.name.clone(),
            from_bucket: self.host.is_none(),
            expected_identity: self.expected_identity.clone(),
        }
    }

    fn line(&self, place_width: usize, theme: &Theme, width: usize) -> Line<'static> {
        let place = format::fit_middle(self.place(), place_width);
        let room = width.saturating_sub(place_width + 14);
        let path = self.distinction.fit(&self.path, room);
        Line::from(vec![
            Span::styled(format!("  {place} "), theme.title),
            Span::raw(format!("{path} {:>9}", size(self.bytes))),
        ])
    }
}

/// Finds out how the paths in each place differ.
fn distinguish(targets: &mut [Target]) {
    let mut places: HashMap<Option<&HostName>, Vec<usize>> = HashMap::new();
    for (index, target) in targets.iter().enumerate() {
        places.entry(target.host.as_ref()).or_default().push(index);
    }
    let mut distinctions = vec![None; targets.len()];
    for indices in places.into_values() {
        let paths: Vec<&str> = indices.iter().map(|index| &*targets[*index].path).collect();
        for (index, distinction) in indices.iter().zip(Distinction::between(&paths)) {
            distinctions[*index] = Some(distinction);
        }
    }
    for (target, distinction) in targets.iter_mut().zip(distinctions) {
        target.distinction = distinction.unwrap_or(target.distinction);
    }
}

fn file_target(host: &HostName, snapshot: &Snapshot) -> Target {
    Target {
        host: Some(host.clone()),
        name: snapshot.name.clone(),
        distinction: Distinction::none(&snapshot.path),
        path: snapshot.path.clone(),
        bytes: snapshot.size_bytes,
        expected_identity: snapshot.file.map(ImageIdentity::File),
    }
}

fn object_target(object: &Object) -> Target {
    Target {
        host: None,
        name: object.name.clone(),
        distinction: Distinction::none(&object.key),
        path: object.key.clone(),
        bytes: object.size_bytes,
        expected_identity: Some(object.identity()),
    }
}

/// Returns the files and objects of the candidates.
fn locations(candidates: &[Candidate]) -> Arc<[ImageLocation]> {
    let files = candidates.iter().flat_map(|candidate| {
        let hosts = candidate.hosts.iter();
        hosts.map(|host| ImageLocation {
            host: Some(host.clone()),
            name: candidate.name.clone(),
        })
    });
    let objects = candidates.iter().map(|candidate| ImageLocation {
        host: None,
        name: candidate.name.clone(),
    });
    files.chain(objects).collect()
}
