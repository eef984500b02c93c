"""Open pages in a browser and record what should not happen there."""

from playwright.sync_api import Browser, ConsoleMessage, Page, Request


def open_watched(browser: Browser, address: str, width: int) -> tuple[Page, list[str]]:
    """Open a page; return it, and a list that fills with whatever should not happen.

    Those are requests to other servers, and errors of the script and of its policy.
    """
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    page.set_default_timeout(60_000)
    problems: list[str] = []

    def check_request(request: Request) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            problems.append(request.url)

    def check_message(message: ConsoleMessage) -> None:
        if "Policy" in message.text:
            problems.append(message.text)

    page.on("request", check_request)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", check_message)
    page.goto(address)
    return page, problems
