//! The server's own pages in a real browser: Chromium, started by each test for itself.

mod listing;
mod upload;

use serde_json::{Value, json};
use tests::{Browser, Server};

/// Where the server has this path.
fn url(server: &Server, path: &str) -> String {
    format!("http://{}{path}", server.address())
}

/// What in the page that is shown has less contrast to what is behind it than WCAG 2.2 §1.4.3 (AA) asks for.
fn faint(browser: &Browser) -> Vec<String> {
    let script = "
        const channels = color => color.match(/[\\d.]+/g).map(Number);
        const luminance = color => {
            const [r, g, b] = channels(color).map(c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
            return .2126 * r + .7152 * g + .0722 * b;
        };
        const behind = element => {
            for (; element; element = element.parentElement) {
                const color = getComputedStyle(element).backgroundColor;
                if (channels(color)[3] !== 0) return color;
            }
            return 'rgb(255, 255, 255)';
        };
        const faint = [];
        for (const element of document.querySelectorAll('body *')) {
            const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
            if (!own || !element.checkVisibility()) continue;
            const [a, b] = [luminance(getComputedStyle(element).color), luminance(behind(element))];
            const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
            if (!(ratio >= 4.5)) faint.push(`${element.outerHTML}: ${ratio}`);
        }
        return faint;";
    texts(&browser.run(script, &[]))
}

/// Whether something of the page is wider than the window.
fn overflows(browser: &Browser) -> bool {
    browser.run("return document.documentElement.scrollWidth > document.documentElement.clientWidth", &[])
        == json!(true)
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
}
