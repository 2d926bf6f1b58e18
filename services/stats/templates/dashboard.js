"use strict";
// The page is whole without this. With it, the figures are fetched again whenever the service says that they have changed.
(() => {
  const live = document.getElementById("live");
  const say = (text) => { if (live.textContent !== text) live.textContent = text; };
  let version = document.body.dataset.version;
  let loading = false;

  const renew = async () => {
    if (loading) return;
    loading = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, credentials: "same-origin" });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const old = document.getElementById("figures");
      const open = [...old.querySelectorAll("details")].map((each) => each.open);
      const focused = document.activeElement && document.activeElement.getAttribute("href");
      old.replaceWith(fresh.getElementById("figures"));
      document.querySelectorAll("#figures details").forEach((each, at) => { each.open = open[at] || false; });
      document.querySelector("header time").replaceWith(fresh.querySelector("header time"));
      if (focused) {
        const again = [...document.querySelectorAll("#figures a")].find((each) => each.getAttribute("href") === focused);
        if (again) again.focus({ preventScroll: true });
      }
      version = fresh.body.dataset.version;
    } finally {
      loading = false;
    }
  };

  const source = new EventSource("/live" + location.search);
  source.addEventListener("figures", (event) => {
    say("· trực tiếp");
    if (event.data !== version) renew();
  });
  source.onerror = () => say("· mất kết nối, đang nối lại");
})();
