import Foundation
import Models
import Testing

@testable import AudioToken
@testable import Checkpoints
@testable import Converter

@Suite struct ConfigurationReaderTests {
  private static let attending = "CrossAttnDownBlock2D"
  private static var unet: [String: Any] {
    [
      "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
      "down_block_types": [attending, attending, attending, "DownBlock2D"],
      "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    ]
  }

  private func unet(_ changes: [String: Any]) throws -> UNetConfiguration {
    try ConfigurationReader.unet(configuration(Self.unet.merging(changes) { $1 }))
  }

  @Test("Settings that are left out have the values that diffusers and transformers give them")
  func defaults() throws {
    #expect(
      try unet([:])
        == UNetConfiguration(
          latentChannels: 4, blockChannels: [320, 640, 1280, 1280], downAttention: [true, true, true, false],
          upAttention: [false, true, true, true], midBlock: true, layersPerBlock: [2, 2, 2, 2],
          transformerDepth: [1, 1, 1, 1], heads: [8, 8, 8, 8], contextWidth: 768, groups: 32, epsilon: 1e-5,
          flipSinToCos: true, frequencyShift: 0))
    #expect(
      try ConfigurationReader.vae(configuration(["block_out_channels": [128, 256]]))
        == VAEConfiguration(
          latentChannels: 4, outputChannels: 3, blockChannels: [128, 256], layersPerBlock: 1, groups: 32,
          scalingFactor: 0.18215, midAttention: true, postQuantConvolution: true))
    #expect(
      try ConfigurationReader.text(configuration([:]))
        == TextConfiguration(
          vocabulary: 49408, positions: 77, width: 512, layers: 12, heads: 8, feedForward: 2048, quickGELU: true,
          epsilon: 1e-5))
    let (sampler, kind) = try ConfigurationReader.sampler(configuration(["skip_prk_steps": true]))
    var expected = SamplerConfiguration()
    expected.betaStart = 0.0001
    expected.betaEnd = 0.02
    expected.betaSchedule = .linear
    expected.stepsOffset = 0
    expected.clipSample = true
    #expect(sampler == expected && kind == .pndm)
    #expect(try ConfigurationReader.sampler(configuration(["_class_name": "DDIMScheduler"])).0.setAlphaToOne)
  }

  @Test("Stable Diffusion 2 has heads that differ by level, exact GELU, 23 layers and predicts velocity")
  func stableDiffusion2() throws {
    let found = try unet([
      "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": true,
      "upcast_attention": true, "dual_cross_attention": false, "only_cross_attention": false,
      "num_class_embeds": NSNull(), "sample_size": 96, "in_channels": 4, "act_fn": "silu",
    ])
    #expect(found.heads == [5, 10, 20, 20] && found.contextWidth == 1024)
    let text = try ConfigurationReader.text(
      configuration(["hidden_act": "gelu", "hidden_size": 1024, "num_hidden_layers": 23, "num_attention_heads": 16]))
    #expect(!text.quickGELU && text.layers == 23 && text.width == 1024 && text.heads == 16)
    let (sampler, kind) = try ConfigurationReader.sampler(
      configuration([
        "_class_name": "DDIMScheduler", "prediction_type": "v_prediction", "beta_schedule": "scaled_linear",
        "clip_sample": false, "steps_offset": 1, "set_alpha_to_one": false,
      ]))
    #expect(sampler.prediction == .velocity && kind == .ddim && !sampler.setAlphaToOne && sampler.stepsOffset == 1)
  }

  @Test("Pruned relatives have fewer levels, fewer layers and no middle")
  func pruned() throws {
    let small = try unet(["layers_per_block": 1, "mid_block_type": NSNull()])
    #expect(!small.midBlock && small.layersPerBlock == [1, 1, 1, 1])
    let tiny = try unet([
      "block_out_channels": [320, 640, 1280], "down_block_types": [Self.attending, Self.attending, Self.attending],
      "up_block_types": [String](repeating: "CrossAttnUpBlock2D", count: 3), "layers_per_block": [1, 2, 1],
      "mid_block_type": "UNetMidBlock2DCrossAttn", "transformer_layers_per_block": [1, 2, 3],
    ])
    #expect(tiny.midBlock && tiny.layersPerBlock == [1, 2, 1] && tiny.upAttention == [true, true, true])
    #expect(tiny.transformerDepth == [1, 2, 3] && tiny.heads == [8, 8, 8])
  }

  @Test("What a UNet would compute otherwise is refused by its name")
  func unsupportedUNets() throws {
    let unsupported: [String: Any] = [
      "act_fn": "gelu", "addition_embed_type": "text_time", "attention_type": "gated", "center_input_sample": true,
      "class_embed_type": "timestep", "class_embeddings_concat": true, "conv_in_kernel": 1, "conv_out_kernel": 1,
      "cross_attention_norm": "layer_norm", "downsample_padding": 0, "dual_cross_attention": true,
      "encoder_hid_dim": 768, "encoder_hid_dim_type": "text_proj", "mid_block_only_cross_attention": true,
      "mid_block_scale_factor": 2, "mid_block_type": "UNetMidBlock2D", "num_class_embeds": 1000,
      "only_cross_attention": true, "resnet_out_scale_factor": 1.5, "resnet_skip_time_act": true,
      "resnet_time_scale_shift": "scale_shift", "reverse_transformer_layers_per_block": [1, 1, 1, 1],
      "time_cond_proj_dim": 256, "time_embedding_act_fn": "silu", "time_embedding_dim": 512,
      "time_embedding_type": "fourier", "timestep_post_act": "silu",
    ]
    for (key, value) in unsupported {
      let error = try refusal(key) { try unet([key: value]) }
      guard case .unsupported("config.json", key, _, _) = error else {
        Issue.record("\(key): \(error)")
        continue
      }
      #expect(error.description.hasPrefix("config.json: \(key) is "))
      _ = try unet([key: NSNull()])
    }
    for changes in [
      ["down_block_types": ["AttnDownBlock2D", Self.attending, Self.attending, "DownBlock2D"]],
      ["down_block_types": [Self.attending]], ["up_block_types": ["SimpleCrossAttnUpBlock2D"]],
      ["block_out_channels": "320"], ["attention_head_dim": [8, 8]], ["layers_per_block": [2.5]],
      ["cross_attention_dim": [768, 768]], ["flip_sin_to_cos": 1.5],
      ["transformer_layers_per_block": [[1], [1], [1], [1]]],
    ] as [[String: Any]] {
      let error = try refusal("\(changes)") { try unet(changes) }
      guard case .checkpoint(.setting("config.json", let key, _, _)) = error, changes[key] != nil else {
        Issue.record("\(changes): \(error)")
        continue
      }
    }
  }

  @Test("What the other networks would compute otherwise is refused by its name")
  func unsupportedOthers() throws {
    func refusedKey(_ body: () throws -> Void) -> String? {
      do { try body() } catch ConvertError.unsupported(_, let key, _, _) { return key } catch {
        Issue.record("\(error)")
        return nil
      }
      return nil
    }
    for (key, value) in [
      ("act_fn", "relu"), ("out_channels", 4), ("shift_factor", 0.1), ("latents_mean", [0.0]), ("latents_std", [1.0]),
    ] as [(String, Any)] {
      #expect(
        refusedKey { _ = try ConfigurationReader.vae(configuration(["block_out_channels": [8], key: value])) } == key)
    }
    #expect(refusedKey { _ = try ConfigurationReader.text(configuration(["hidden_act": "relu"])) } == "hidden_act")
    for (key, value) in [
      ("activation_fn", "relu"), ("conv_bias", true), ("layer_norm_first", true),
      ("relative_position_embedding", false),
      ("gru_rel_pos", false),
    ] as [(String, Any)] {
      #expect(refusedKey { _ = try ConfigurationReader.beats(configuration([key: value])) } == key)
    }
    for (key, value) in [
      ("thresholding", true), ("trained_betas", [0.1]), ("rescale_betas_zero_snr", true),
      ("beta_schedule", "squaredcos_cap_v2"), ("prediction_type", "sample"), ("timestep_spacing", "karras"),
    ] as [(String, Any)] {
      #expect(refusedKey { _ = try ConfigurationReader.sampler(configuration([key: value])) } == key)
    }
    let blocks: [String: Any] = [
      "block_out_channels": [8, 8], "up_block_types": ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"],
    ]
    #expect(throws: ConvertError.self) { try ConfigurationReader.vae(configuration(blocks)) }
    #expect(throws: ConvertError.self) { try ConfigurationReader.beats(configuration([:])) }
  }
}
