# A Homebrew formula for a tap of your own: docs/install.md. A release fills in the address and the checksum.
class Switchyard < Formula
  desc "Serve any MLX language model to OpenAI's and Anthropic's clients"
  homepage "https://github.com/mlx-switchyard/switchyard"
  url "WHEEL_URL", using: :nounzip
  version "WHEEL_VERSION"
  sha256 "WHEEL_SHA256"
  license "Apache-2.0"

  depends_on arch: :arm64
  depends_on macos: :sonoma
  depends_on "python@3.13"

  def install
    libexec.install Dir["*.whl"].first
    (bin/"switchyard").write <<~SH
      #!/bin/bash
      exec "#{libexec}/venv/bin/switchyard" "$@"
    SH
  end

  # After the installation, since Homebrew would rewrite the libraries of MLX's wheels, which have no room for it.
  def post_install
    system formula_python, "-m", "venv", "--clear", libexec/"venv"
    system libexec/"venv/bin/pip", "install", "--quiet", Dir[libexec/"*.whl"].first
  end

  def formula_python
    Formula["python@3.13"].opt_bin/"python3.13"
  end

  service do
    run [opt_bin/"switchyard", "serve"]
    keep_alive crashed: true
    log_path var/"log/switchyard.log"
    error_log_path var/"log/switchyard.log"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/switchyard --version")
  end
end
