// Stands for the script that KISSmetrics publishes for a key: the documented part of it, written anew.
// It is fetched as <base>/<key>.2.js, and sends to <base>/e, <base>/s and <base>/a.
(function () {
  "use strict";

  const source = new URL(document.currentScript.src);
  const base = new URL(".", source).href;
  const key = window._kmk || source.pathname.split("/").pop().replace(".2.js", "");
  const FIVE_YEARS = 5 * 365 * 86400;
  const VISIT = 30 * 60;
  const LONGEST_ADDRESS = 2000;

  function domain() {
    const chosen = window.KM_COOKIE_DOMAIN || location.hostname.replace(/^www\./, "");
    const bare = chosen.replace(/^\./, "");
    // Browsers accept no domain for addresses and single words.
    return /^[\d.]+$/.test(bare) || !bare.includes(".") ? "" : "; domain=." + bare;
  }

  function read(name) {
    const found = document.cookie.split("; ").find((pair) => pair.startsWith(name + "="));
    if (!found) return "";
    try {
      return decodeURIComponent(found.slice(name.length + 1));
    } catch {
      return "";
    }
  }

  function write(name, value, seconds) {
    document.cookie = name + "=" + encodeURIComponent(value) + "; path=/; max-age=" + seconds + "; samesite=lax" + domain();
  }

  const remove = (name) => write(name, "", 0);
  const now = () => Math.floor(Date.now() / 1000);
  const identity = () => read("km_ni") || read("km_ai");

  function newAnonymousId() {
    const bytes = crypto.getRandomValues(new Uint8Array(20));
    write("km_ai", btoa(String.fromCharCode(...bytes)), FIVE_YEARS);
  }

  function flat(properties) {
    const result = {};
    for (const [name, value] of Object.entries(properties || {})) {
      if (Array.isArray(value)) result[name] = value.join(",");
      else if (value === null || value === undefined) result[name] = "";
      else if (typeof value !== "object" && typeof value !== "function") result[name] = String(value);
    }
    return result;
  }

  function send(kind, parameters, callback) {
    const query = new URLSearchParams({ _t: now(), _d: 1, ...parameters, _k: key });
    const address = base + kind + "?" + query;
    const long = address.length > LONGEST_ADDRESS;
    const options = { mode: "no-cors", credentials: "omit", keepalive: true, method: long ? "POST" : "GET" };
    if (long) options.body = query;
    const done = typeof callback === "function" ? callback : () => {};
    fetch(long ? base + kind : address, options).then(done, done);
  }

  const calls = {
    record(name, properties, callback) {
      if (typeof properties === "function") [properties, callback] = [{}, properties];
      if (name) send("e", { ...flat(properties), _p: identity(), _n: name }, callback);
    },
    set(properties, callback) {
      send("s", { ...flat(properties), _p: identity() }, callback);
    },
    alias(one, other) {
      if (one && other) send("a", { _p: one, _n: other });
    },
    identify(id) {
      if (id === null || id === undefined || ["", "null", "nil"].includes(String(id))) return calls.clearIdentity();
      const named = read("km_ni");
      if (named === String(id)) return;
      // Who is named already is somebody else: no alias, and the anonymous id goes too.
      if (named) write("km_ai", id, FIVE_YEARS);
      else if (read("km_ai")) calls.alias(read("km_ai"), id);
      write("km_ni", id, FIVE_YEARS);
    },
    clearIdentity() {
      remove("km_ni");
      newAnonymousId();
      write("km_lv", "x", FIVE_YEARS);
    },
    pageView() {
      calls.record("Page View", { "Viewed URL": location.href, Referrer: document.referrer || "Direct" });
    },
  };

  function push(call) {
    try {
      if (typeof call === "function") call();
      else if (Array.isArray(call) && calls[call[0]]) calls[call[0]](...call.slice(1));
      else console.error("_kmq: there is no call", Array.isArray(call) ? call[0] : call);
    } catch (error) {
      console.error("_kmq: a call failed", error);
    }
  }

  function countVisit() {
    const returns = read("km_vs") === "1";
    write("km_vs", "1", VISIT);
    write("km_lv", now(), FIVE_YEARS);
    if (!returns && !window.KM_SKIP_VISITED_SITE) {
      calls.record("Visited Site", { URL: location.href, Referrer: document.referrer || "Direct" });
    }
  }

  if (window._kmq && !Array.isArray(window._kmq)) return; // fetched twice
  const waiting = window._kmq || [];
  if (!read("km_ai")) newAnonymousId();
  window.KM = { i: identity, ts: now, record: calls.record, set: calls.set };
  window._kmq = { push: (...all) => all.forEach(push) };
  waiting.forEach(push);
  countVisit();
})();
