// commands_show.cpp -- `lanas_train show`: a genotype drawn, its network counted.
#include <iostream>

#include "autograd/plan.h"
#include "nas/check_settings.h"
#include "nas/commands.h"
#include "nas/draw.h"
#include "nas/supernet.h"

namespace lanas {
namespace {

using Json = nlohmann::json;

struct ShowCommand {
  Common common;
  std::string genotype, supernet, svg;
  NetworkConfig network;
  int partial = 4;
  CLI::Option *channels = nullptr, *layers = nullptr;

  CLI::App* add(CLI::App& app) {
    CLI::App* sub =
        app.add_subcommand("show", "draw a genotype and count its parameters and multiply-accumulates");
    add_common(*sub, common);
    auto* g = sub->add_option(
        "--genotype", genotype,
        "published name (DARTS_V1, DARTS_V2, PC_DARTS_cifar, PC_DARTS_image, PDARTS), file or text");
    sub->add_option("--supernet", supernet, "darts or pc-darts, instead of a genotype")->excludes(g);
    channels = sub->add_option("--channels", network.channels,
                               "channels of the first cells (default 36; supernets 16)");
    layers = sub->add_option("--layers", network.layers, "cells (default 20; supernets 8)");
    sub->add_option("--partial", partial, "K of pc-darts")->capture_default_str();
    sub->add_option("--classes", network.classes, "classes")->capture_default_str();
    sub->add_option("--image", network.image, "image side; 224 is the ImageNet form")->capture_default_str();
    sub->add_option("--svg", svg, "draw both cells into this file (needs graphviz)");
    return sub;
  }

  void run() {
    CHECK(genotype.empty() != supernet.empty(), "show: expected --genotype or --supernet");
    CHECK(svg.empty() || supernet.empty(), "--svg: draws a genotype, found --supernet");
    if (!svg.empty()) check_writable("--svg", svg);
    common.chosen();
    check_json_target(common.json);
    CHECK(network.classes > 0 && network.classes <= 1'000'000, "--classes: expected 1 to 1000000, found ",
          network.classes);
    CHECK(network.channels > 0 && network.channels <= 4096, "--channels: expected 1 to 4096, found ",
          network.channels);
    CHECK(network.layers > 0 && network.layers <= 1000, "--layers: expected 1 to 1000, found ",
          network.layers);
    CHECK(partial > 0, "--partial: expected 1 or more, found ", partial);
    supernet.empty() ? show_genotype() : show_supernet();
  }

  void show_genotype() {
    const Genotype g = resolve_genotype(genotype);
    const NetworkCounts counts = count_network(network, g);
    if (!svg.empty()) CHECK(write_svg(svg, draw_dot(g)), svg, ": not drawn: graphviz's dot is not installed");
    if (common.json != "-")
      std::cout << draw_text(g)
                << join("parameters ", counts.parameters, " (auxiliary head ", counts.parameters_auxiliary,
                        "), MACs ", counts.macs, "\n");
    emit(common.json, {{"parameters", counts.parameters},
                       {"macs", counts.macs},
                       {"parameters_auxiliary", counts.parameters_auxiliary},
                       {"skips_normal", count_skips(g.normal)},
                       {"skips_reduce", count_skips(g.reduce)},
                       {"genotype", write_genotype(g)}});
  }

  void show_supernet() {
    CHECK(supernet == "darts" || supernet == "pc-darts", "--supernet: expected darts or pc-darts, found '",
          supernet, "'");
    SupernetConfig config = supernet == "darts" ? SupernetConfig::darts() : SupernetConfig::pc_darts();
    if (channels->count()) config.channels = network.channels;
    if (layers->count()) config.layers = network.layers;
    if (supernet == "pc-darts") config.partial = partial;
    config.classes = network.classes;
    config.image = network.image;
    config.batch = 1;
    ParameterStore weights, buffers, architecture;
    const Supernet net(config, weights, buffers, architecture);
    const Plan plan(net.tape, {.outputs = {net.logits}}, std::make_shared<Workspace>());
    if (common.json != "-")
      std::cout << join("parameters ", weights.count(), " (architecture ", architecture.count(), "), MACs ",
                        plan.macs(), "\n");
    emit(common.json, {{"parameters", weights.count()},
                       {"macs", plan.macs()},
                       {"parameters_auxiliary", 0},
                       {"skips_normal", 0},
                       {"skips_reduce", 0},
                       {"parameters_architecture", architecture.count()}});
  }
};

}  // namespace

void add_show(CLI::App& app) { add_command(app, std::make_shared<ShowCommand>()); }

}  // namespace lanas
