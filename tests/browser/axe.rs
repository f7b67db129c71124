//! What axe says of the page that is open: whatever it can tell by itself of WCAG 2.2 AA, and good
//! habits beyond.

use std::sync::LazyLock;

use crate::browser::Browser;

static AXE: LazyLock<String> = LazyLock::new(|| {
    let file = std::env::var("TOSEND_TEST_AXE")
        .expect("TOSEND_TEST_AXE is not set: run the tests with tests/run");
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"))
});

/// Each violation with the elements that it is about, as text. What axe cannot decide is left out.
const VIOLATIONS: &str = "
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22a', 'wcag22aa', 'best-practice'];
    const options = {
      runOnly: {type: 'tag', values: tags}, resultTypes: ['violations'], preload: false,
    };
    const tell = node => `  ${node.html}\\n    ${node.failureSummary.replaceAll('\\n', '\\n    ')}`;
    return axe.run(document, options).then(({violations}) => violations.map(
      ({id, help, nodes}) => [`${id}: ${help}`, ...nodes.map(tell)].join('\\n')));";

impl Browser {
    /// Of a page with an open dialog, the dialog: what lies behind is inert, and axe leaves it out. It
    /// leaves out, too, the colours of what would have to be scrolled to.
    #[track_caller]
    pub fn assert_accessible(&self, what: &str) {
        let violations = self.violations();
        assert!(
            violations.is_empty(),
            "axe at {what}:\n{}",
            violations.join("\n")
        );
    }

    #[track_caller]
    fn violations(&self) -> Vec<String> {
        if !self.script::<bool>("return 'axe' in window") {
            // Put in from outside the page, whose policy allows no script of a stranger.
            self.script::<()>(&AXE);
        }
        self.script(VIOLATIONS)
    }
}

/// The alarm works, on a page and in a dialog over it.
#[test]
fn axe_finds_what_is_wrong() {
    use crate::screens::sign_up;
    use crate::support::*;

    let app = App::start(Backend::Sqlite, |_| {});
    let browser = Browser::new(&app);
    let keys = sign_up(&browser);
    let spoil = |place: &str| {
        browser.script::<()>(&format!(
            "const nameless = document.createElement('button');
             const faint = document.createElement('p');
             faint.textContent = 'Faint';
             faint.style.color = '#ccc';
             faint.style.background = '#fff';
             document.querySelector('{place}').prepend(nameless, faint);"
        ));
        let found = browser.violations().join("\n");
        assert!(found.contains("button-name: "), "{place}: {found}");
        assert!(found.contains("color-contrast: "), "{place}: {found}");
    };
    spoil("main");
    browser.reload();
    keys.create();
    spoil("dialog[open]");
}
