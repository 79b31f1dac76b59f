// Figures that can be turned: Bokeh is loaded where a page has one, and only then is the figure's static twin hidden.
{
  const folder = new URL("bokeh/", document.currentScript.src)
  const load = name => new Promise((loaded, failed) =>
    document.head.append(Object.assign(document.createElement("script"), {src: new URL(name, folder), onload: loaded, onerror: failed})))
  const turn = async figure => {
    const [place, item] = figure.children
    figure.classList.add("turns")
    await Bokeh.embed.embed_item(JSON.parse(item.textContent), place.id)
  }
  addEventListener("DOMContentLoaded", async () => {
    const figures = document.querySelectorAll("div.turning")
    if (!figures.length) return
    await load("bokeh.min.js")
    await load("bokeh-widgets.min.js")
    for (const figure of figures) await turn(figure)
  })
}
