# The demo page on CPUs: docker build -t realfake . && docker run --rm -p 7860:7860 realfake
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 HF_HUB_OFFLINE=1
WORKDIR /app
COPY space/requirements.txt space/requirements.txt
RUN pip install --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' space/requirements.txt)" \
    && pip install --requirement space/requirements.txt
COPY realfake_hf realfake_hf
COPY space space
RUN useradd --create-home --uid 1000 page
USER page
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/health', timeout=4)"]
CMD ["python", "space/app.py", "--host", "0.0.0.0", "--port", "7860"]
