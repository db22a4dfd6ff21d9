"""What people need of the page who have a phone, a dark screen, a keyboard alone, or a screen reader: asked of a browser that
has it open (support_browser.Browser)."""
import json

PHONE = (360, 740)
# What is read has to differ so much from what is behind it (WCAG 2, AA), and what is only looked at.
TEXT, GRAPHICS = 4.5, 3.0

CONTRASTS = """(() => {
    const canvas = (() => { const e = document.body.appendChild(document.createElement("i")); e.style.background = "Canvas";
        const c = getComputedStyle(e).backgroundColor; e.remove(); return c; })();
    const numbers = text => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
    const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3]));
    const light = c => { const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b; };
    const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
    const behind = e => e ? over(numbers(getComputedStyle(e).backgroundColor), behind(e.parentElement)) : numbers(canvas).slice(0, 3);
    const opacity = e => e ? Number(getComputedStyle(e).opacity) * opacity(e.parentElement) : 1;
    const against = (e, colour) => { const c = numbers(colour), under = behind(e); c[3] *= opacity(e); return ratio(over(c, under), under); };
    // What is seldom there: the words for what is wrong, and for what is well, wherever words are.
    const probes = [];
    for (const place of [document.querySelector("header"), document.querySelector(".card"), document.querySelector("#experts td, #experts th")])
        for (const kind of ["good", "bad"]) { const e = place.appendChild(document.createElement("span")); e.className = kind; e.textContent = kind; probes.push(e); }
    const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; node = walk.nextNode();) {
        const e = node.parentElement;
        if (!node.textContent.trim() || e.closest("script, svg") || !e.getClientRects().length) continue;
        found.push([against(e, getComputedStyle(e).color), "text", e.tagName + "." + e.className + ": " + node.textContent.trim().slice(0, 40)]);
    }
    for (const e of document.querySelectorAll("svg rect, svg polyline")) {
        const style = getComputedStyle(e), colour = style.stroke !== "none" ? style.stroke : style.fill;
        found.push([against(e.ownerSVGElement.parentElement, colour), "graphics", e.tagName]);
    }
    const input = document.querySelector("input");
    found.push([against(input, getComputedStyle(input).color), "text", "what is typed"]);
    for (const e of probes) e.remove();
    return {scheme: matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light", canvas, found};
})()"""


def press(page, key, code=0, text="", shift=False):
    event = {"key": key, "code": key if key != " " else "Space", "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
    page.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **event, **({"text": text} if text else {}))
    page.ask("Input.dispatchKeyEvent", type="keyUp", **event)


def tab(page, shift=False):
    press(page, "Tab", 9, shift=shift)


def test_colours(page):
    """In both schemes all that is written can be read, and all that is drawn seen."""
    seen = set()
    for scheme in ("light", "dark"):
        page.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        told = page.run(CONTRASTS)
        seen.add(told["canvas"])
        assert told["scheme"] == scheme, told["scheme"]
        texts = [one for one in told["found"] if one[1] == "text"]
        assert len(texts) > 80 and any(one[1] == "graphics" for one in told["found"]), told
        for contrast, kind, what in told["found"]:
            assert contrast >= (TEXT if kind == "text" else GRAPHICS), f"{scheme}: {contrast:.2f}: {what}"
    assert len(seen) == 2, f"dark is no other than light: {seen}"
    page.ask("Emulation.setEmulatedMedia", features=[])


def test_phone(page):
    """On a phone nothing but the tables is wider than the screen, these scroll by themselves, and each of their columns can be touched."""
    page.ask("Emulation.setDeviceMetricsOverride", width=PHONE[0], height=PHONE[1], deviceScaleFactor=2, mobile=True)
    page.ask("Emulation.setTouchEmulationEnabled", enabled=True)
    page.until(f"innerWidth === {PHONE[0]}", "it has a phone's width")
    assert page.run("document.documentElement.scrollWidth") == PHONE[0], page.run(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth)"
        ".map(e => e.tagName + '#' + e.id + ' ' + e.textContent.slice(0, 30))")
    wide = page.run("[...document.querySelectorAll('body *')].filter(e => !e.parentElement.closest('.scroll') && e.getClientRects().length && "
                    "(r => r.left < 0 || r.right > innerWidth + .5)(e.getBoundingClientRect())).map(e => e.outerHTML.slice(0, 80))")
    assert not wide, wide
    for part in ("#rate", "#latency svg", "#devices .card", "#processes", "#dht", "#filter", "#experts", "#replies"):
        assert page.run(f"document.querySelector('{part}').getBoundingClientRect().width") > 0.5 * min(PHONE[0], 320), part
    assert page.run("(s => s.scrollWidth > s.clientWidth)(document.querySelector('#experts').parentNode)"), "the table scrolls by itself"
    # Each column's button comes under a finger, is large enough for one, and sorts.
    for column in range(page.run("document.querySelectorAll('#experts th[scope=col] button').length")):
        button = f"document.querySelectorAll('#experts th[scope=col] button')[{column}]"
        page.run(f"{button}.scrollIntoView({{block: 'center', inline: 'center'}})")
        at = page.run(f"(r => ({{x: r.x + r.width / 2, y: r.y + r.height / 2, width: r.width, height: r.height}}))({button}.getBoundingClientRect())")
        assert 0 < at["x"] < PHONE[0] and 0 < at["y"] < PHONE[1] and at["width"] >= 24 and at["height"] >= 24, (column, at)
        before = page.run(f"{button}.parentNode.getAttribute('aria-sort')")
        point = [{"x": at["x"], "y": at["y"]}]
        page.ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=point)
        page.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        page.until(f"{button}.parentNode.getAttribute('aria-sort') !== '{before}'", f"column {column} is touched")
    page.ask("Emulation.setTouchEmulationEnabled", enabled=False)
    page.ask("Emulation.clearDeviceMetricsOverride")
    page.until(f"innerWidth > {PHONE[0]}", "it is wide again")
    assert page.run("document.documentElement.scrollWidth <= innerWidth"), "nor is it too wide on a wide screen"


def test_keyboard(page):
    """Tab goes through all that can be used, in the order in which it is read, and shows where it is; Enter and the space bar sort, words filter."""
    page.run("$('name').tabIndex = -1; $('name').focus(); $('name').removeAttribute('tabindex')")  # from the top on
    wanted = page.run("[...document.querySelectorAll('a[href], button, input, [tabindex]')].length")
    order = []
    where = ("(e => e === document.body ? null : [e.id || e.getAttribute('aria-label') || e.textContent, e.matches(':focus-visible'), "
             "parseFloat(getComputedStyle(e).outlineWidth), e.getBoundingClientRect().top + scrollY])(document.activeElement)")
    for _ in range(wanted):
        tab(page)
        order.append(page.run(where))
    assert None not in order and len({one[0] for one in order}) == wanted, f"Tab passes something over: {order}"
    assert all(visible and width >= 2 for _, visible, width, _ in order), f"who stands where is not shown: {order}"
    names = [one[0] for one in order]
    assert names[:3] == ["Processes, a table that scrolls", "filter", "Experts, a table that scrolls"] and names[3].startswith("uid"), names
    tops = [one[3] for one in order[:4]]
    assert tops == sorted(tops), f"not in the order in which it is read: {order}"
    for _ in range(wanted - 4):  # back to the first column's
        tab(page, shift=True)
    assert page.run(where)[0].startswith("uid"), page.run(where)
    head = "document.activeElement.parentNode.getAttribute('aria-sort')"
    uids = "[...document.querySelectorAll('#experts tbody tr')].map(r => r.cells[0].textContent)"
    was, order = page.run(head), page.run(uids)
    press(page, "Enter", 13, "\r")
    page.until(f"{head} !== '{was}'", "Enter sorts")
    once = page.run(head)
    press(page, " ", 32, " ")
    page.until(f"{head} !== '{once}'", "so does the space bar")
    press(page, "Enter", 13, "\r")
    page.until(f"{head} === '{once}'", "and Enter again")
    ascending = sorted(order, key=lambda uid: [int(part) if part.isdigit() else part for part in uid.split(".")])
    assert page.run(uids) == (ascending if once == "ascending" else ascending[::-1]), (once, page.run(uids))
    for _ in range(2):
        tab(page, shift=True)
    assert page.run("document.activeElement.id") == "filter"
    page.ask("Input.insertText", text=".2")
    page.until(f"JSON.stringify({uids}) === '[\"nop.2\"]'", "what is typed filters")
    for _ in range(2):
        press(page, "Backspace", 8, "\b")
    page.until(f"{uids}.length === 3", "and what is taken back")


def test_roles(page):
    """What a screen reader is told: landmarks, headings in order, names of all that is used or drawn, tables with heads, and what is said of itself."""
    page.ask("Accessibility.enable")
    nodes = [node for node in page.ask("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]

    def told(role):
        return [(node.get("name", {}).get("value", ""), {p["name"]: p["value"].get("value") for p in node.get("properties", [])})
                for node in nodes if node["role"]["value"] == role]

    assert len(told("main")) == 1 and len(told("banner")) == 1, [node["role"] for node in nodes]
    assert {"Now", "Devices", "Processes", "Who else is in the DHT", "Experts", "Replies since the start"} <= {name for name, _ in told("region")}
    levels = [properties["level"] for _, properties in told("heading")]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:])), levels
    for role in ("button", "searchbox", "image", "img", "table", "columnheader", "region", "heading"):
        assert all(name.strip() for name, _ in told(role)), f"a {role} without a name: {told(role)}"
    assert [name for name, _ in told("searchbox")] == ["Filter by uid"]
    assert {name for name, _ in told("table")} == {"Processes", "Experts"}
    assert len(told("columnheader")) == 8 + 9 and len(told("button")) == 9
    assert {name for name, _ in told("rowheader")} >= {"nop.0", "nop.1", "nop.2", "expertd-frontend"}, told("rowheader")
    drawn = {name for name, _ in told("image") + told("img")}
    assert {f"{what} over the last minutes" for what in ("Requests per second", "Requests in the server", "Answers other than OK per second")} <= drawn, drawn
    assert any(name.startswith("Latency in seconds: ") for name in drawn) and any(name.startswith("Rows a batch: ") for name in drawn), drawn
    assert [properties.get("live") for _, properties in told("status")] == ["polite"] * 2
    sorts = page.run("[...document.querySelectorAll('#experts thead th')].map(th => th.getAttribute('aria-sort'))")
    assert sorted(set(sorts)) in (["ascending", "none"], ["descending", "none"]) and sorts.count("none") == len(sorts) - 1, sorts
    assert page.run("document.documentElement.lang") == "en" and json.dumps(page.run("document.title"))
    page.ask("Accessibility.disable")
